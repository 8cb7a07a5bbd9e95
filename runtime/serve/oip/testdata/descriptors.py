"""Holds our messages against those in Triton's client.

    descriptors.py < FILE

FILE is our FileDescriptorProto. Every message, field, number, type and method of it
has to be Triton's as well, but for what the protocol itself adds.
"""

import sys

from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

OURS = {"ModelMetadataResponse.properties"}  # of the protocol's text, not of Triton

ours = descriptor_pb2.FileDescriptorProto.FromString(sys.stdin.buffer.read())

theirs, enums, methods = {}, {}, {}


def fields(prefix, m):
    theirs[prefix] = {f.name: (f.number, f.type, f.label, f.type_name) for f in m.field}
    for n in m.nested_type:
        fields(f"{prefix}.{n.name}", n)


for module in (service_pb2, model_config_pb2):
    f = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(f)
    for m in f.message_type:
        fields(m.name, m)
    for e in f.enum_type:
        enums[e.name] = {v.name: v.number for v in e.value}
    for s in f.service:
        methods.update({m.name: (m.input_type, m.output_type, m.client_streaming, m.server_streaming) for m in s.method})

checked, wrong = 0, []


def compare(prefix, m):
    global checked
    for f in m.field:
        at = f"{prefix}.{f.name}"
        if at.split("Entry")[0] in OURS or prefix.endswith("PropertiesEntry"):
            continue
        checked += 1
        if theirs.get(prefix, {}).get(f.name) != (f.number, f.type, f.label, f.type_name):
            wrong.append(at)
    for n in m.nested_type:
        compare(f"{prefix}.{n.name}", n)


for m in ours.message_type:
    compare(m.name, m)
for e in ours.enum_type:
    checked += 1
    if enums.get(e.name) != {v.name: v.number for v in e.value}:
        wrong.append(e.name)
for m in ours.service[0].method:
    checked += 1
    if methods.get(m.name) != (m.input_type, m.output_type, m.client_streaming, m.server_streaming):
        wrong.append(m.name)
if wrong or ours.package != "inference" or ours.service[0].name != "GRPCInferenceService":
    sys.exit(f"these are not Triton's: {wrong}")
print(f"{checked} fields, enums and methods are Triton's")
