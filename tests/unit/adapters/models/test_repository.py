from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamml.adapters.models.model_toml import sha256_of, write_toml
from streamml.adapters.models.onnx import OnnxModel
from streamml.adapters.models.onnx_file import external_files
from streamml.adapters.models.repository import ModelFiles, find, versions
from streamml.errors import ConfigError
from streamml.ports.model import Signature, Tensor
from tests.conformance.onnx_files import identity, store, with_external_data

SIGNATURE = Signature({"x": Tensor("float32", (2,))}, {"y": Tensor("float32", (2,))})


def problems_of(root: Path, name: str = "test", version: str | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        find(root, name, version)
    return refused.value.problems


def edit(files: ModelFiles, change: Callable[[str], str]) -> None:
    path = files.folder / "model.toml"
    path.write_text(change(path.read_text()))


class TestFind:
    def test_files_are_what_model_toml_says(self, tmp_path: Path) -> None:
        stored = store(tmp_path, identity(), "flight-delay", "3")
        files = find(tmp_path, "flight-delay", "3")
        assert files == stored
        assert (files.name, files.version) == ("flight-delay", "3")
        assert files.model == tmp_path / "flight-delay" / "3" / "model.onnx"
        assert files.sha256 == sha256_of(files.model)
        assert files.signature == SIGNATURE
        assert files.metrics == {"rows": 10}
        assert files.document["made"] == {"by": "a test"}

    def test_highest_number_is_taken_not_the_last_word(self, tmp_path: Path) -> None:
        for version in ("9", "10", "2", "nightly"):
            store(tmp_path, identity(), version=version)
        assert find(tmp_path, "test").version == "10"
        assert find(tmp_path, "test", "nightly").version == "nightly"
        assert versions(tmp_path, "test") == ("10", "9", "2", "nightly")

    def test_files_and_hidden_folders_are_no_versions(self, tmp_path: Path) -> None:
        store(tmp_path, identity(), version="1")
        (tmp_path / "test" / "2").write_text("a file")
        (tmp_path / "test" / ".3").mkdir()
        assert find(tmp_path, "test").version == "1"

    def test_further_tables_are_the_writers_own(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        edit(files, lambda text: text + "[training]\nseed = 7\nrows = { train = 1, test = 2 }\n")
        assert find(tmp_path, "test").document["training"] == {"seed": 7, "rows": {"train": 1, "test": 2}}

    def test_version_may_be_a_number_in_toml(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity(), version="4")
        edit(files, lambda text: text.replace('version = "4"', "version = 4"))
        assert find(tmp_path, "test").version == "4"

    def test_metrics_may_be_left_out(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        edit(files, lambda text: text.replace("[metrics]", "[something]"))
        assert find(tmp_path, "test").metrics == {}


class TestMissing:
    def test_repository(self, tmp_path: Path) -> None:
        (problem,) = problems_of(tmp_path / "models")
        assert str(tmp_path / "models") in problem

    def test_model_says_which_there_are(self, tmp_path: Path) -> None:
        store(tmp_path, identity(), "other")
        store(tmp_path, identity(), "another")
        (problem,) = problems_of(tmp_path)
        assert "another, other" in problem
        assert str(tmp_path / "test") in problem

    def test_model_in_an_empty_repository(self, tmp_path: Path) -> None:
        assert "no model at all" in problems_of(tmp_path)[0]

    def test_version_says_which_there_are(self, tmp_path: Path) -> None:
        store(tmp_path, identity(), version="1")
        store(tmp_path, identity(), version="2")
        (problem,) = problems_of(tmp_path, version="3")
        assert "version 3" in problem
        assert "2, 1" in problem

    def test_number_where_no_version_is_one(self, tmp_path: Path) -> None:
        store(tmp_path, identity(), version="nightly")
        (problem,) = problems_of(tmp_path)
        assert "nightly" in problem

    def test_both_files_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "test" / "1").mkdir(parents=True)
        (tmp_path / "test" / "1" / "model.onnx.part").touch()
        problems = problems_of(tmp_path)
        assert len(problems) == 2
        assert "model.onnx;" in problems[0]
        assert "model.toml;" in problems[1]
        assert all("model.onnx.part" in problem for problem in problems)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../test", "test/1", "/etc", "a\\b", "a\0b", ".hidden", "-flag", "a;b", "a@1", "a b", "a\n", "é"],
)
class TestNames:
    def test_model_name_that_could_lead_elsewhere_is_refused(self, tmp_path: Path, name: str) -> None:
        store(tmp_path, identity())
        (problem,) = problems_of(tmp_path / "test" / "..", name)
        assert repr(name) in problem
        assert versions(tmp_path, name) == ()

    def test_version_that_could_lead_elsewhere_is_refused(self, tmp_path: Path, name: str) -> None:
        store(tmp_path, identity())
        (problem,) = problems_of(tmp_path, "test", name)
        assert repr(name) in problem

    def test_both_are_reported(self, tmp_path: Path, name: str) -> None:
        assert len(problems_of(tmp_path, name, "../1")) == 2


class TestModelToml:
    def test_bad_toml_says_where(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        edit(files, lambda text: text + "oops =\n")
        (problem,) = problems_of(tmp_path)
        assert "model.toml" in problem
        assert "line" in problem

    def test_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        (files.folder / "model.toml").write_bytes(b'name = "\xff"')
        assert "model.toml cannot be read" in problems_of(tmp_path)[0]

    @pytest.mark.parametrize(("field", "value"), [("name", "other"), ("version", "2")])
    def test_disagreeing_with_the_folder(self, tmp_path: Path, field: str, value: str) -> None:
        files = store(tmp_path, identity())
        edit(
            files,
            lambda text: "\n".join(
                f'{field} = "{value}"' if line.startswith(field) else line for line in text.splitlines()
            ),
        )
        (problem,) = problems_of(tmp_path)
        assert f"{field} = {value!r}" in problem

    def test_every_problem_is_reported_at_once(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        edit(
            files,
            lambda text: (
                '[signature.inputs.x]\ndtype = "f4"\nshape = [2]\n[signature.inputs.z]\ndtype = "text"\nshape = 3\n'
            ),
        )
        problems = "\n".join(problems_of(tmp_path))
        assert "has no name" in problems
        assert "has no version" in problems
        assert "has no sha256" in problems
        assert "[signature.inputs.x] has the dtype 'f4'" in problems
        assert "[signature.inputs.z] has the shape 3" in problems
        assert "declares no outputs" in problems
        assert len(problems_of(tmp_path)) == 6

    def test_empty_file_lacks_everything(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        edit(files, lambda _: "")
        assert [problem.split(";")[0].rpartition(" ")[2] for problem in problems_of(tmp_path)] == [
            *("'test'", "'1'", "inputs", "outputs", "sha256")
        ]

    @pytest.mark.parametrize(
        "shape", ["[]", "[2]", '["rows", -1]', '["rows", true]', '["rows", 2.0]', '["rows", "n"]', '"rows"']
    )
    def test_shape_that_is_none(self, tmp_path: Path, shape: str) -> None:
        files = store(tmp_path, identity())
        edit(files, lambda text: text.replace('["rows", 2]', shape, 1))
        (problem,) = problems_of(tmp_path)
        assert "[signature.inputs.x] has the shape" in problem

    def test_signature_that_is_no_table(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        edit(files, lambda text: text.partition("[signature")[0] + "signature = 3\n")
        assert len(problems_of(tmp_path)) == 2

    def test_changed_model_is_refused(self, tmp_path: Path) -> None:
        """L4.2."""
        files = store(tmp_path, identity())
        other = store(tmp_path / "elsewhere", identity(shape=("rows", 3)))
        files.model.write_bytes(other.model.read_bytes())
        (problem,) = problems_of(tmp_path)
        assert files.sha256 in problem
        assert other.sha256 in problem

    def test_model_that_was_copied_in_part_is_refused(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        files.model.write_bytes(files.model.read_bytes()[:-10])
        assert any("copied in part" in problem for problem in problems_of(tmp_path))

    def test_checksum_may_be_in_capitals(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        edit(files, lambda text: text.replace(files.sha256, files.sha256.upper()))
        assert find(tmp_path, "test").model == files.model

    @pytest.mark.parametrize(
        "content", [b"", b"hello", b"\x80\x04K\x01.", b"\x08\x08", bytes(range(256)) * 10, b"\x3a\xff\x01"]
    )
    def test_file_that_is_no_onnx_is_refused(self, tmp_path: Path, content: bytes) -> None:
        files = store(tmp_path, identity())
        files.model.write_bytes(content)
        edit(files, lambda text: text.replace(files.sha256, sha256_of(files.model)))
        (problem,) = problems_of(tmp_path)
        assert "is not an ONNX model" in problem


class TestExternalData:
    def stored(self, tmp_path: Path, location: str = "weights.bin", where: str = "initializer") -> ModelFiles:
        folder = tmp_path / "models" / "test" / "1"
        data = folder / location
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_bytes(np.array([10, 20], np.float32).tobytes())
        (folder / "model.onnx").write_bytes(with_external_data(location, where).SerializeToString())
        write_toml(folder, SIGNATURE, {}, {})
        return find(tmp_path / "models", "test")

    def pointing_at(self, tmp_path: Path, location: str) -> tuple[str, ...]:
        files = self.stored(tmp_path)
        files.model.write_bytes(with_external_data(location).SerializeToString())
        edit(files, lambda text: text.replace(files.sha256, sha256_of(files.model)))
        return problems_of(tmp_path / "models")

    @pytest.mark.parametrize("where", ["initializer", "attribute", "branch"])
    def test_places_in_the_model_where_it_is_found(self, tmp_path: Path, where: str) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(with_external_data("weights.bin", where).SerializeToString())
        assert external_files(path) == {"weights.bin"}

    def test_none_where_there_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(identity().SerializeToString())
        assert external_files(path) == frozenset()

    @pytest.mark.parametrize("location", ["weights.bin", "data/weights.bin"])
    def test_data_beside_the_model_is_loaded(self, tmp_path: Path, location: str) -> None:
        model = OnnxModel.load(self.stored(tmp_path, location))
        assert model.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[11, 21]]

    def test_changed_data_is_refused(self, tmp_path: Path) -> None:
        """L4.2."""
        files = self.stored(tmp_path)
        (files.folder / "weights.bin").write_bytes(np.array([1, 2], np.float32).tobytes())
        (problem,) = problems_of(tmp_path / "models")
        assert "weights.bin has the sha256" in problem

    def test_data_without_a_checksum_is_refused(self, tmp_path: Path) -> None:
        files = self.stored(tmp_path)
        edit(files, lambda text: text.replace("[files]", "[notes]"))
        (problem,) = problems_of(tmp_path / "models")
        assert '[files] "weights.bin"' in problem

    @pytest.mark.parametrize(
        "location",
        [
            "../weights.bin",
            "data/../../secret",
            "/etc/hostname",
            "",
            ".",
            "absent.bin",
            "a\\b",
            "a\0b",
            "*/_ORT_MEM_ADDR_/*",
            "x" * 300,
        ],
    )
    def test_data_outside_of_the_folder_is_refused(self, tmp_path: Path, location: str) -> None:
        problems = self.pointing_at(tmp_path, location)
        assert len(problems) == 1
        assert f"needs {location!r}, which is no file inside its folder" in problems[0]

    def test_link_out_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        files = self.stored(tmp_path)
        outside = tmp_path / "outside.bin"
        (files.folder / "weights.bin").rename(outside)
        os.symlink(outside, files.folder / "weights.bin")
        (problem,) = problems_of(tmp_path / "models")
        assert "no file inside its folder" in problem

    def test_files_of_model_toml_stay_inside_too(self, tmp_path: Path) -> None:
        files = self.stored(tmp_path)
        edit(files, lambda text: text.replace("[files]", '[files]\n"../x" = "00"'))
        (problem,) = problems_of(tmp_path / "models")
        assert "'../x'" in problem


class TestWriteToml:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        folder = tmp_path / "test" / "1"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(identity().SerializeToString())
        signature = Signature(
            {"x.y z": Tensor("float16", (None, 3)), 'é"\\\n\x7f': Tensor("text", ())}, {"_": Tensor("bool", (0,))}
        )
        made = {"by": 'C:\\train "it"\n', "ok": True, "seeds": [1, 2], "files": ["a", "b"]}
        metrics = {"auc": np.float64(0.71), "rows": np.int64(3), "tiny": 1e-05, "share": np.float32(0.5)}
        write_toml(folder, signature, metrics, made)
        files = find(tmp_path, "test")
        assert files.signature == signature
        assert list(files.signature.inputs) == list(signature.inputs)
        assert files.metrics == {"auc": 0.71, "rows": 3, "tiny": 1e-05, "share": 0.5}
        assert files.document["made"] == made

    def test_value_that_toml_lacks_is_refused(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity())
        with pytest.raises(TypeError, match="NoneType"):
            write_toml(files.folder, SIGNATURE, {"auc": None}, {})
        assert find(tmp_path, "test") == files

    def test_documented_example_has_the_shape_that_is_written(self, tmp_path: Path) -> None:
        files = store(tmp_path, identity(shape=("rows", None)))
        document = tomllib.loads((files.folder / "model.toml").read_text())
        assert document["signature"]["inputs"]["x"] == {"dtype": "float32", "shape": ["rows", "any"]}
