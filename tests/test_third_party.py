"""What a distribution of somebody else brings works as what is ours does; what is broken in it stops nothing else."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from diffbio.core import registry as registry_module
from diffbio.core.registry import KINDS, registry

FAKE = Path(__file__).parent / "third_party"
AMOUNT_PER_LIGHT = 2.5

pytest_plugins = "pytester"


@pytest.fixture
def luminometer(install):
    """Install the imaginary distribution, which brings one of each kind."""
    install("luminometer", "luminometer_plugin", sources=[FAKE])


@pytest.mark.usefixtures("luminometer")
def test_one_of_each_kind_works_from_file_to_file(diffbio, install, tmp_path):
    install("broken", "absent_module")
    light = np.geomspace(0.5, 5, 20)
    plate, run, written = tmp_path / "a.plate", tmp_path / "run", tmp_path / "results" / "a.amounts"
    np.savetxt(plate, np.stack([light, AMOUNT_PER_LIGHT * light], axis=1))

    status, printed, complaint = diffbio("fit", "calibration", plate, "--out", run)
    assert status == 0, complaint
    exported = run / "exports" / "calibration.factor"
    assert f"for other tools: {exported}" in printed
    assert float(exported.read_text()) == pytest.approx(AMOUNT_PER_LIGHT, abs=1e-3)

    status, printed, complaint = diffbio("apply", run, plate, "--out", written, "--scale", "2")
    assert status == 0, complaint
    instrument, *amounts = written.read_text().splitlines()
    assert instrument == "luminometer"
    np.testing.assert_allclose(np.array(amounts, float), 2 * AMOUNT_PER_LIGHT * light, atol=0.02)
    assert (written.parent / "a_amounts.png").read_bytes().startswith(b"\x89PNG")
    assert "no figure of 'failing' (luminometer 1.0): ZeroDivisionError: no light at all" in complaint

    status, printed, complaint = diffbio("calibrate", exported, "--digits", "2")
    assert status == 0, complaint
    assert "the factor is 2.50" in printed
    assert "plugin 'broken' of broken 1.0: 'absent_module' can't be imported: ModuleNotFoundError" in complaint
    brought = {kind for kind in KINDS for found in getattr(registry(), kind).values() if found.version == "1.0"}
    assert brought == set(KINDS)


@pytest.mark.usefixtures("luminometer")
def test_listings_and_help_show_what_it_brings(diffbio):
    status, printed, _ = diffbio("operators")
    assert status == 0
    assert "luminometer 1.0" in printed
    assert "light -> amounts" in printed
    status, printed, complaint = diffbio("show", "Calibration")  # not the command of that name that the plugin brings
    assert status == 0
    assert "trained by the loss calibration_error" in printed
    assert "warning: the command 'show' of luminometer 1.0 is left out: diffbio has its own" in complaint
    _, printed, _ = diffbio("--help")
    assert "Prints what was learned. (luminometer)" in printed


HOOK = """
from diffbio.core.hookspecs import OperatorDeclaration, Plugin, hookimpl

@hookimpl
def diffbio_plugin():
    keys = {{"reads": ("x",), "writes": ("y",)}}
    operator = OperatorDeclaration(name={name!r}, target="math:sqrt", summary="x", example={at!r}, **keys)
    return Plugin(api={api}, operators=(operator,))
"""


def test_the_listing_names_each_broken_plugin_and_goes_on(diffbio, install, monkeypatch):
    install("absent", "no_such_module")
    install("malformed", "not a module")
    install("raises", "raising", modules={"raising": "1 / 0"})
    misspelt = HOOK.format(api=1, name="M", at="a:b").replace("def diffbio_plugin", "def diffbio_plugins")
    install("misspelt", "misspelling", modules={"misspelling": misspelt})
    install("newer", "newer_api", modules={"newer_api": HOOK.format(api=2, name="N", at="a:b")})
    install("one", "claims_one", modules={"claims_one": HOOK.format(api=1, name="Same", at="a:b")})
    install("two", "claims_two", modules={"claims_two": HOOK.format(api=1, name="Same", at="a:b")})
    slow = f"import time\ntime.sleep(0.05)\n{HOOK.format(api=1, name='Slowly', at='a:b')}"
    install("slow", "slow_module", modules={"slow_module": slow})
    deprecated = f"import warnings\nwarnings.warn('an old habit')\n{HOOK.format(api=1, name='Old', at='a:b')}"
    install("old", "old_module", modules={"old_module": deprecated})
    monkeypatch.setattr(registry_module, "SLOW_IMPORT", 0.04)

    with pytest.warns(UserWarning, match="an old habit"):  # not about a plugin, so shown as Python does
        status, printed, complaint = diffbio("operators")
    assert status == 0
    assert "diffbio-singlecell" in printed
    assert "Slowly" in printed
    for said in (
        "plugin 'absent' of absent 1.0: 'no_such_module' can't be imported: ModuleNotFoundError",
        "plugin 'malformed' of malformed 1.0: 'not a module' can't be imported",
        "plugin 'raises' of raises 1.0: 'raising' can't be imported: ZeroDivisionError",
        "plugin 'misspelt' of misspelt 1.0: ",
        "pip install --upgrade diffbio-core",
        "the operator name 'Same' is claimed by one 1.0 and two 1.0",
        "plugin 'slow' of slow 1.0: importing slow_module takes 0.",
    ):
        assert complaint.count(said) == 1, complaint
    assert "Traceback" not in complaint
    assert "registry.py" not in complaint  # one line each, not Python's way of showing a warning


def test_an_example_that_fails_stops_no_other_operator(install, pytester):
    failing = HOOK.format(api=1, name="Failing", at="failing_examples:example")
    sound = (FAKE / "luminometer_plugin.py").read_text()
    examples = "def example():\n    raise FloatingPointError('not today')\n"
    modules = {"failing_plugin": failing, "failing_examples": examples, "sound_plugin": sound}
    install("failing", "failing_plugin", modules=modules)
    install("sound", "sound_plugin", sources=[FAKE])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = ("--diffbio", "failing", "--diffbio", "sound", "-p", "no:cacheprovider", "-n", "0")
        result = pytester.runpytest_inprocess(*options, "-k", "config_round_trip")
    result.assert_outcomes(passed=1, failed=1, deselected=32)
    result.stdout.fnmatch_lines(["ships_an_example (Failing): *can't be built: FloatingPointError: not today"])
