"""The commands of radiogen, installed as radiogen.cli."""
