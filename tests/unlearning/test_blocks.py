"""What counts as a block in the architectures of the package and in others."""

import pytest
import torch
from torch import nn

from retrace_pl.models import VGG16BN, MobileNetV2, ResNet18, ResNet20, ResNetCIFAR, SmallCNN, TorchvisionClassifier
from retrace_pl.unlearning.blocks import find_blocks, training_only


def blocks(model, size=32, channels=1):
    torch.manual_seed(0)
    return find_blocks(model, torch.rand(1, channels, size, size))


def test_small_cnn_has_three_convolutions_with_their_norms_and_the_head():
    expected = [("body.0", "body.1"), ("body.4", "body.5"), ("body.8", "body.9"), ("head",)]
    assert blocks(SmallCNN(1, 3, width=2), 16) == expected, "the head is registered first and runs last"


def test_residual_blocks_stay_whole():
    found = blocks(ResNetCIFAR(1, 3, width=2))
    assert found == [("body.0", "body.1"), ("body.3",), ("body.4",), ("body.5",), ("head",)]
    assert len(blocks(ResNet20(1, 3))) == 1 + 9 + 1


def test_vgg_has_13_convolutions_and_3_linear_layers():
    found = blocks(VGG16BN(1, 3))
    assert len(found) == 16
    assert [len(block) for block in found] == [2] * 13 + [1] * 3
    assert found[-3:] == [("hidden.0",), ("hidden.3",), ("head",)]


def test_backbones_are_taken_apart():
    found = blocks(ResNet18(1, 3))
    assert [block[0] for block in found[:2]] == ["body.conv1", "body.layer1.0"]
    assert len(found) == 1 + 8 + 1
    found = blocks(MobileNetV2(1, 3))
    assert len(found) == 1 + 17 + 1 + 1, "stem, inverted residuals, last convolution, head"
    assert found[-2] == ("body.18.0", "body.18.1")


def test_transformer_layers_are_blocks():
    model = TorchvisionClassifier(3, 3, "vit_b_32", resize=224)
    found = blocks(model, 224, 3)
    assert len(found) == 1 + 12 + 1
    assert found[-2] == ("body.encoder.layers.encoder_layer_11", "body.encoder.ln")


def test_order_is_that_of_execution_and_unused_parts_are_left_out():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.unused, self.first = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 4)
            self.norm = nn.BatchNorm1d(4, affine=False)
            self.before = nn.LayerNorm(4)

        def forward(self, inputs):
            return self.last(self.norm(self.first(self.before(inputs))))

    model = Odd().train()
    model.last.eval()
    assert find_blocks(model, torch.rand(1, 4)) == [("before", "first", "norm"), ("last",)]
    assert model.training
    assert not model.last.training
    assert int(model.norm.num_batches_tracked) == 0


def test_one_layer_and_norms_alone():
    assert find_blocks(nn.Linear(4, 3), torch.rand(1, 4)) == [("",)]
    assert find_blocks(nn.Sequential(nn.LayerNorm(4)), torch.rand(1, 4)) == [("0",)]


def test_only_the_chosen_parameters_learn_and_the_rest_is_restored():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    model[1].bias.requires_grad_(False)
    model(torch.rand(2, 4)).sum().backward()
    before = [p.requires_grad for p in model.parameters()]

    def inside():
        with training_only(model[2].parameters(), model):
            assert [p.requires_grad for p in model.parameters()] == [False] * 4 + [True] * 2
            assert model[0].weight.grad is None
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        inside()
    assert [p.requires_grad for p in model.parameters()] == before
