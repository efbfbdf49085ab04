"""What a plan predicts lies near what a step needs, of a small model."""

from tools.bench import plan


def test_plan(capsys):
    sizes = [
        "embed=64",
        "layers=2",
        "heads=2",
        "kv_heads=2",
        "head_dim=32",
        "mlp=128",
        "context=64",
    ]
    words = [f"model.{size}" for size in sizes]
    found = plan.main([*words, "data.max_length=64", "train.batch_size=4", "model.unroll=full"])
    assert "memory: measured / predicted" in capsys.readouterr().out
    assert 0.9 < found["FLOPs of the compiler"] / found["FLOPs predicted"] < 1.2
    assert found["memory predicted"] > 0 and found["FLOPs of the model"] > 0
