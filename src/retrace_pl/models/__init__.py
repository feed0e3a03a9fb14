"""Classifiers and generators: plain torch modules, images with pixels in [0, 1] or token ids at both ends."""

from __future__ import annotations

from retrace_pl.models.augment import DifferentiableAugmentation
from retrace_pl.models.base import AdversarialGenerator, Classifier, Generator, ImageClassifier
from retrace_pl.models.behaviour import Behaviour, ClassifierBehaviour, behaviour_of
from retrace_pl.models.dcgan import DCGAN
from retrace_pl.models.distilbert import DistilBertClassifier
from retrace_pl.models.ema import ExponentialMovingAverage
from retrace_pl.models.features import FeatureExtractor
from retrace_pl.models.gpt2 import GPT2Generator
from retrace_pl.models.init import initialise
from retrace_pl.models.mobilenet_v2 import MobileNetV2
from retrace_pl.models.resnet18 import ResNet18
from retrace_pl.models.resnet_cifar import ResNet20, ResNetCIFAR
from retrace_pl.models.small_cnn import SmallCNN
from retrace_pl.models.text_generator import TextGenerator
from retrace_pl.models.token_behaviour import TokenBehaviour, TokenClassifier
from retrace_pl.models.torchvision import TorchvisionClassifier
from retrace_pl.models.vgg import VGG16BN

__all__ = [
    "DCGAN",
    "VGG16BN",
    "AdversarialGenerator",
    "Behaviour",
    "Classifier",
    "ClassifierBehaviour",
    "DifferentiableAugmentation",
    "DistilBertClassifier",
    "ExponentialMovingAverage",
    "FeatureExtractor",
    "GPT2Generator",
    "Generator",
    "ImageClassifier",
    "MobileNetV2",
    "ResNet18",
    "ResNet20",
    "ResNetCIFAR",
    "SmallCNN",
    "TextGenerator",
    "TokenBehaviour",
    "TokenClassifier",
    "TorchvisionClassifier",
    "behaviour_of",
    "initialise",
]
