import inspect

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from retrace_pl import models
from retrace_pl.errors import InputError
from retrace_pl.models import (
    VGG16BN,
    Classifier,
    DistilBertClassifier,
    FeatureExtractor,
    ImageClassifier,
    MobileNetV2,
    ResNet18,
    ResNet20,
    ResNetCIFAR,
    SmallCNN,
    TorchvisionClassifier,
    initialise,
)

REGISTERED = [
    entry
    for name in models.__all__
    if inspect.isclass(entry := getattr(models, name))
    and issubclass(entry, Classifier)
    and entry is not DistilBertClassifier  # takes texts: test_distilbert.py
    and not inspect.isabstract(entry)
]
SMALL = [SmallCNN, ResNetCIFAR]


def images(n, channels, size, seed=0):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def test_every_architecture_is_registered():
    named = {"SmallCNN", "ResNetCIFAR", "ResNet20", "ResNet18", "VGG16BN", "MobileNetV2", "TorchvisionClassifier"}
    assert named <= {entry.__name__ for entry in REGISTERED}


@pytest.mark.parametrize("architecture", REGISTERED, ids=lambda entry: entry.__name__)
def test_logits_are_the_head_of_the_features(architecture):
    model = architecture(2, 7).eval()
    x = images(3, 2, 32)
    with torch.no_grad():
        features, logits = model.features(x), model(x)
        assert features.shape == (3, model.num_features)
        assert logits.shape == (3, model.num_classes) == (3, 7)
        linear = functional.linear(features, model.head.weight, model.head.bias)
        torch.testing.assert_close(logits, linear)
        assert torch.isfinite(logits).all()
        assert logits.std() > 0
        # in eval mode a record's logits do not depend on the other records of the batch
        torch.testing.assert_close(model(x[:1]), logits[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", REGISTERED, ids=lambda entry: entry.__name__)
def test_state_dict_and_input_gradient(architecture):
    first, second = architecture(1, 4).eval(), architecture(1, 4).eval()
    x = images(2, 1, 32).requires_grad_()
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(x), second(x))
    (gradient,) = torch.autograd.grad(first(x).square().sum(), x)
    assert gradient.shape == x.shape
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [  # published for CIFAR-10: 0.27, 11.17, 15.25 and 2.24 million
        (ResNet20, 272_474),
        (ResNet18, 11_173_962),
        (VGG16BN, 15_253_578),
        (MobileNetV2, 2_236_682),
    ],
)
def test_parameter_counts(architecture, parameters):
    assert sum(parameter.numel() for parameter in architecture(3, 10).parameters()) == parameters


def test_depth_of_residual_networks():
    for depth in (8, 14, 20):
        convolutions = [
            module
            for module in ResNetCIFAR(3, 10, depth=depth).modules()
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
        ]
        assert len(convolutions) == depth - 1
    with pytest.raises(InputError, match="6n \\+ 2"):
        ResNetCIFAR(3, 10, depth=10)


@pytest.mark.parametrize("architecture", SMALL)
@pytest.mark.parametrize("size", [16, 32])
def test_small_networks_take_16_and_32_pixels(architecture, size):
    assert architecture(1, 10)(images(2, 1, size)).shape == (2, 10)


def test_normalisation_happens_inside():
    model = SmallCNN(3, 5, mean=[0.4, 0.5, 0.6], std=[0.1, 0.2, 0.4]).eval()
    plain = SmallCNN(3, 5, mean=0.0, std=1.0).eval()
    plain.load_state_dict({**model.state_dict(), "mean": plain.mean, "std": plain.std})
    x = images(4, 3, 16)
    normalised = torch.stack([(x[:, 0] - 0.4) / 0.1, (x[:, 1] - 0.5) / 0.2, (x[:, 2] - 0.6) / 0.4], dim=1)
    torch.testing.assert_close(model(x), plain(normalised))
    assert {"mean", "std"} <= set(model.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"std": 0.0}, "std"), ({"mean": [0.1, 0.2]}, "2 values for 3 channels"), ({"std": [1.0, 1.0, -1.0]}, "std")],
)
def test_bad_normalisation(settings, message):
    with pytest.raises(InputError, match=message):
        SmallCNN(3, 5, **settings)


@pytest.mark.parametrize(
    ("architecture", "size"), [(VGG16BN, 16), (SmallCNN, 4), (ResNet20, 4), (ResNet18, 4), (MobileNetV2, 4)]
)
def test_images_too_small(architecture, size):
    with pytest.raises(InputError, match=f"at least .*got {size}x{size}.*image_size"):
        architecture(1, 10)(images(2, 1, size))


def test_wrong_channels():
    with pytest.raises(InputError, match=r"\[n, 3, H, W\], got \[2, 1, 16, 16\]"):
        SmallCNN(3, 10)(images(2, 1, 16))


def test_bad_class_count():
    with pytest.raises(InputError, match="at least 1"):
        SmallCNN(1, 0)


@pytest.mark.parametrize("architecture", [ResNet20, VGG16BN, MobileNetV2])
def test_mls_bench_initialisation(architecture):
    model = architecture(3, 10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            fan_out = module.weight[0, 0].numel() * module.out_channels
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        elif isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx((2 / module.in_features) ** 0.5, rel=0.1)
            assert not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()


def test_initialise_is_seeded_and_resets_statistics():
    first, second = SmallCNN(1, 10), SmallCNN(1, 10)
    first.train()(images(8, 1, 16))
    state = torch.get_rng_state()
    for model in (first, second):
        initialise(model, torch.Generator().manual_seed(3))
    assert torch.equal(state, torch.get_rng_state())
    for (name, a), (_, b) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    initialise(second, torch.Generator().manual_seed(4))
    assert not torch.equal(first.head.weight, second.head.weight)


def test_feature_extractor_is_a_frozen_copy():
    model = SmallCNN(1, 10).train()
    extractor = FeatureExtractor(model).train()
    x = images(4, 1, 16)
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert extractor.num_features == model.num_features
    torch.testing.assert_close(extractor(x), model.eval().features(x))
    with torch.no_grad():
        model.body[0].weight.zero_()
    assert extractor(x).abs().sum() > 0


class TestTorchvision:
    @pytest.mark.parametrize("name", ["squeezenet1_1"])
    def test_no_linear_layer(self, name):
        with pytest.raises(InputError, match="does not end in a linear layer"):
            TorchvisionClassifier(3, 10, name)

    @pytest.mark.parametrize(
        ("name", "message"), [("resnet345", "did you mean resnet34,"), ("zzzz", "known are alexnet")]
    )
    def test_unknown_names(self, name, message):
        with pytest.raises(InputError, match=message):
            TorchvisionClassifier(3, 10, name)

    def test_unknown_weights(self):
        with pytest.raises(InputError, match="choose DEFAULT or IMAGENET1K_V1"):
            TorchvisionClassifier(3, 10, "resnet18", "IMAGENET21K")

    @pytest.mark.parametrize(
        ("name", "features"), [("mobilenet_v3_small", 1024), ("shufflenet_v2_x0_5", 1024), ("googlenet", 1024)]
    )
    def test_other_families(self, name, features):
        model = TorchvisionClassifier(2, 5, name).train()
        assert model.num_features == features
        assert model(images(3, 2, 32)).shape == (3, 5)

    def test_features_are_the_input_of_the_last_linear_layer(self):
        model = TorchvisionClassifier(3, 1000, "resnet18").eval()
        reference = torchvision.models.resnet18(num_classes=1000).eval()
        weights = {name: value for name, value in model.body.state_dict().items() if not name.startswith("fc")}
        reference.load_state_dict({**weights, "fc.weight": model.head.weight, "fc.bias": model.head.bias})
        x = images(2, 3, 32)
        torch.testing.assert_close(model(x), reference((x - 0.5) / 0.5))

    def test_sizes(self):
        with pytest.raises(InputError, match=r"at least 32x32.*set resize"):
            TorchvisionClassifier(3, 10, "vgg11")(images(2, 3, 16))
        with pytest.raises(InputError, match="resize must be at least 63"):
            TorchvisionClassifier(3, 10, "alexnet", resize=32)
        model = TorchvisionClassifier(1, 10, "mobilenet_v3_small", resize=64).eval()
        assert model(images(2, 1, 16)).shape == (2, 10)

    def test_pretrained_weights_are_kept_and_averaged_over_colours(self, monkeypatch):
        original = torchvision.models.resnet18()
        monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights, **options: original)
        colours = original.conv1.weight.detach().clone()
        model = TorchvisionClassifier(1, 10, "resnet18", "DEFAULT").eval()
        torch.testing.assert_close(model.body.conv1.weight, colours.sum(dim=1, keepdim=True))


def test_bases_cannot_be_instantiated():
    for base in (Classifier, ImageClassifier):
        with pytest.raises(TypeError, match="abstract"):
            base(1, 2, 3)
