import json, os, sys, sysconfig
program = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
print(json.dumps({
    "program": program,
    "version": sys.version.split()[0],
    "identity": ["mlc.python.v1", program, sys.version, sys.base_prefix, sysconfig.get_platform(), str(sysconfig.get_config_var("SOABI"))],
}))
