# The same plan, its steps as containers on a Dagger engine: mlc --env dagger apply.
# Without an address the SDK provides an engine.
variable "engine" {
  default = env("MLC_DAGGER_ENGINE", "")
}

runner "engine" {
  kind   = "dagger"
  engine = var.engine
}
