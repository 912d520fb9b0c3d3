import json

import pytest
from toy_operators import ProjectConfig

from diffbio.core.errors import ConfigError


def test_is_compared_by_value_and_hashable():
    assert ProjectConfig(n_genes=3) == ProjectConfig(n_genes=3, temperature=1)
    assert hash(ProjectConfig(n_genes=3)) == hash(ProjectConfig(n_genes=3))


def test_round_trips_through_json():
    config = ProjectConfig(n_genes=3, sizes=(4, 5), limit=2.5)
    assert ProjectConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"n_genes": 0}, "ProjectConfig.n_genes is 0; it must be an integer >= 1"),
        ({"n_genes": "3"}, "ProjectConfig.n_genes is '3'; it must be an integer >= 1"),
        ({"n_genes": True}, "ProjectConfig.n_genes is True; it must be an integer >= 1"),
        ({"n_genes": 3, "temperature": -1}, "ProjectConfig.temperature is -1; it must be a number > 0"),
        ({"n_genes": 3, "temperature": float("nan")}, "it must be a number > 0"),
        ({"n_genes": 3, "kind": "other"}, "ProjectConfig.kind is 'other'; it must be one of 'plain', 'fancy'"),
        ({"n_genes": 3, "sizes": 5}, "it must be a list whose items are each an integer"),
        ({"n_genes": 3, "limit": "x"}, "it must be a number or None"),
    ],
)
def test_refuses_values_out_of_range(values, text):
    with pytest.raises(ConfigError) as caught:
        ProjectConfig(**values)
    assert text in str(caught.value)


def test_names_unknown_and_missing_fields():
    with pytest.raises(ConfigError, match=r"has no field 'n_gene' \(did you mean 'n_genes'\?\)"):
        ProjectConfig.from_dict({"n_gene": 3})
    with pytest.raises(ConfigError, match="ProjectConfig needs 'n_genes'"):
        ProjectConfig.from_dict({})
