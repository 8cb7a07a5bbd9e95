package diag

import (
	"embed"
	"io/fs"
	"strings"
)

// Code names a kind of mistake for good: it is never reused for another.
type Code string

// The codes, by hundreds: 10 and 11 the language, 12 environments, 21 references
// and types, 22 leakage, 23 metrics, 24 fairness, 25 feasibility, 26 budget, 27 serving,
// 31 data, 32 training, 33 the model, 40 running, 41 prediction, 42 engines and containers, 43 state and store, 90 mlc itself.
const (
	Syntax         Code = "MLC1001"
	NoSystem       Code = "MLC1002"
	NoSpec         Code = "MLC1003"
	UnknownField   Code = "MLC1101"
	BadValue       Code = "MLC1102"
	MissingField   Code = "MLC1103"
	UndefinedName  Code = "MLC1104"
	EnvSyntax      Code = "MLC1201"
	EnvValue       Code = "MLC1202"
	EnvMissing     Code = "MLC1203"
	NoColumn       Code = "MLC2101"
	NoName         Code = "MLC2102"
	ExprSyntax     Code = "MLC2103"
	ExprType       Code = "MLC2104"
	Cycle          Code = "MLC2105"
	NoMatch        Code = "MLC2106"
	KeyMismatch    Code = "MLC2107"
	NotTimed       Code = "MLC2108"
	BadArgs        Code = "MLC2109"
	EncoderType    Code = "MLC2110"
	OfflineOnly    Code = "MLC2111"
	LabelLeak      Code = "MLC2201"
	LateColumn     Code = "MLC2202"
	LateEvent      Code = "MLC2203"
	FittedLeak     Code = "MLC2204"
	MetricUnfit    Code = "MLC2301"
	NoBaseline     Code = "MLC2302"
	SensitiveInput Code = "MLC2401"
	TooMuchMemory  Code = "MLC2501"
	NoRunner       Code = "MLC2502"
	OverBudget     Code = "MLC2601"
	NotServed      Code = "MLC2701"
	OfflineServed  Code = "MLC2702"
	CallerUnfit    Code = "MLC2703"
	BadTraffic     Code = "MLC2704"
	StepUnfit      Code = "MLC2705"
	FallbackUnfit  Code = "MLC2706"
	ServiceBudget  Code = "MLC2707"
	BatchUnfit     Code = "MLC2708"
	BadSchedule    Code = "MLC2709"
	FileMissing    Code = "MLC3101"
	FileEmpty      Code = "MLC3102"
	NoRows         Code = "MLC3103"
	ColumnGone     Code = "MLC3104"
	TooManyBadRows Code = "MLC3105"
	BadLabel       Code = "MLC3106"
	Unreadable     Code = "MLC3107"
	DuplicateKey   Code = "MLC3108"
	EmptySplit     Code = "MLC3109"
	NotConverged   Code = "MLC3201"
	NoSignal       Code = "MLC3202"
	GateFailed     Code = "MLC3301"
	ProofFailed    Code = "MLC3302"
	BadModel       Code = "MLC3303"
	Locked         Code = "MLC4001"
	StalePlan      Code = "MLC4002"
	StepFailed     Code = "MLC4003"
	Interrupted    Code = "MLC4004"
	TimedOut       Code = "MLC4005"
	NotWritten     Code = "MLC4006"
	NotListening   Code = "MLC4007"
	EngineFailed   Code = "MLC4201"
	NoEngine       Code = "MLC4202"
	EngineVersion  Code = "MLC4203"
	NoGPU          Code = "MLC4204"
	NoImage        Code = "MLC4205"
	NoSecret       Code = "MLC4206"
	BadOutput      Code = "MLC4207"
	OutOfMemory    Code = "MLC4208"
	CommandFailed  Code = "MLC4209"
	PushRefused    Code = "MLC4210"
	NoServer       Code = "MLC4211"
	StateFailed    Code = "MLC4301"
	StoreFailed    Code = "MLC4302"
	NoModel        Code = "MLC4101"
	BadInput       Code = "MLC4102"
	NoRuntimeLib   Code = "MLC9001"
	Internal       Code = "MLC9999"
)

//go:embed codes/*.md
var pages embed.FS

// Explain returns the Markdown page of a code, which holds a wrong and a right
// example, and whether there is one.
func Explain(code Code) (string, bool) {
	b, err := pages.ReadFile("codes/" + string(code) + ".md")
	return string(b), err == nil
}

// Codes returns every code that has a page, in order.
func Codes() []Code {
	names, err := fs.Glob(pages, "codes/*.md")
	if err != nil {
		panic(err) // the pattern is constant
	}
	out := make([]Code, len(names))
	for i, n := range names {
		out[i] = Code(strings.TrimSuffix(strings.TrimPrefix(n, "codes/"), ".md"))
	}
	return out
}
