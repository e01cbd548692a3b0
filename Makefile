# make quickstart: from a fresh clone to box and mask AP of a small SE Mask R-CNN and a picture of its detections.
# make test:       lint, and the tests that a laptop runs in minutes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: quickstart test lint clean

quickstart: $(VENV)/installed
	$(BIN)/python datasets/make_shapes.py
	$(BIN)/python tools/train_net.py --config-file configs/quickstart.yaml --overwrite
	$(BIN)/python tools/predict.py --config-file configs/quickstart.yaml --weights output/quickstart/model_final.pth \
	    --output output/quickstart/pictures --limit 12 datasets/shapes/val
	@echo "Pictures of detections: output/quickstart/pictures/000001.jpg and others beside it"

test: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n logical --dist worksteal

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/tested: setup.py | $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
