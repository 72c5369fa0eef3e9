from pathlib import Path
from world.worker import ROOT
PAGE = ROOT / "deploy/docs/exactness.md"
RESULTS = ROOT / "deploy/docs/results/everystep.md"
def write(steps, outcome): ...
