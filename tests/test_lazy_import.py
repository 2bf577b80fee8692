"""`import scar_hf` loads next to nothing, and the Auto classes know the ranker all the same, in any order of imports."""

import subprocess
import sys

import pytest

AUTO_CONFIG = "from transformers import AutoConfig\n", "AutoConfig.for_model('scar')"
AUTO_MODEL = "from transformers import AutoModel\n", "AutoModel.from_pretrained(sys.argv[1]).config"
PIPELINE = "from transformers import pipeline\n", "pipeline('scar-ranking', model=sys.argv[1]).model.config"
MODEL = "import transformers.models.auto.modeling_auto\n", "scar_hf.ScarModel.from_pretrained(sys.argv[1]).config"


def run(code, *args):
    result = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.splitlines()[-1]


@pytest.mark.parametrize("use", [AUTO_CONFIG, AUTO_MODEL, PIPELINE, MODEL])
def test_the_auto_classes_know_a_ranker_that_was_imported_before_them(use, tiny_ranker):
    imported, config = use
    assert run(f"import sys, scar_hf\n{imported}print({config}.model_type)", tiny_ranker) == "scar"


@pytest.mark.parametrize("use", [AUTO_CONFIG, AUTO_MODEL])
def test_the_auto_classes_know_a_ranker_that_was_imported_after_them(use, tiny_ranker):
    imported, config = use
    assert run(f"import sys\n{imported}import scar_hf\nprint({config}.model_type)", tiny_ranker) == "scar"


def test_import_loads_neither_torch_nor_transformers_under_any_name_of_the_program():
    code = (
        "import sys; sys.argv[0] = {!r}; import scar_hf; dir(scar_hf)\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'numpy') if name in sys.modules])"
    )
    assert run(code.format("scar-hf")) == run(code.format("python")) == "[]"


def test_a_name_is_imported_when_it_is_asked_for():
    code = "import scar_hf\nprint('ScarModel' in dir(scar_hf), scar_hf.ScarConfig is scar_hf.modeling.ScarConfig)"
    assert run(code) == "True True"
