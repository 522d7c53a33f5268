"""How well weights survive: ours, the choices we did not take, torchao's defaults, other tools."""
