"""Networks of packages that are not Keras, at small sizes and with random weights, by `package.name`."""

import importlib
from collections.abc import Callable
from typing import Any

import keras

Build = Callable[[], keras.Model]
IMAGE = (64, 64, 3)


def _take(path: str) -> Any:
    """Return a class or function by its full name, importing its package only now."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _make(path: str, *args: Any, **kwargs: Any) -> Build:
    return lambda: _take(path)(*args, **kwargs)


def _kimm(name: str, size: int = 64) -> Build:
    settings = {"weights": None, "classes": 10, "classifier_activation": None, "include_preprocessing": False}
    return _make(f"kimm.models.{name}", input_shape=(size, size, 3), **settings)


def _behind(shape: tuple[int, ...], path: str, *args: Any, outputs: int = 4, **kwargs: Any) -> Build:
    """A layer of the package between an input and a dense layer."""

    def build() -> keras.Model:
        inputs = keras.Input(shape)
        hidden = keras.layers.Dense(12, activation="relu")(inputs)
        outputs_ = _take(path)(*args, **kwargs)(hidden)
        return keras.Model(inputs, keras.layers.Dense(outputs)(outputs_))

    return build


def _hub_classifier(backbone: Build, head: str = "ImageClassifier", **settings: Any) -> Build:
    return lambda: _take(f"keras_hub.models.{head}")(backbone=backbone(), num_classes=10, **settings)


def _hub(name: str, *args: Any, **kwargs: Any) -> Build:
    return _make(f"keras_hub.models.{name}", *args, **kwargs)


KIMM = (
    *("ConvMixer736D32", "ConvNeXtAtto", "EfficientNetLiteB0", "GhostNetW050", "GhostNetV2W100", "GhostNetV3W050"),
    *("HGNetTiny", "HGNetV2B0", "InceptionNeXtTiny", "LCNet050", "MobileNetV2W050", "MobileNetV3W050Small"),
    *("MobileOneS0", "MobileViTXXS", "MobileViTV2W050", "RegNetX002", "RegNetY002", "RepVGGA0", "ResNet18"),
    *("TinyNetE", "VisionTransformerTiny16", "DenseNet121", "EfficientNetV2B0"),
)

TEXT: dict[str, Any] = {"vocabulary_size": 50, "num_layers": 2, "num_heads": 2, "hidden_dim": 16}
GROUPED: dict[str, Any] = {
    **{"vocabulary_size": 50, "num_layers": 2, "num_query_heads": 4, "num_key_value_heads": 2},
    **{"hidden_dim": 16, "intermediate_dim": 32},
}
VISION: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16}
SHORT = {"max_sequence_length": 16}
MIT: dict[str, Any] = {
    **{"layerwise_depths": [1, 1, 1, 1], "num_layers": 4, "layerwise_num_heads": [1, 1, 2, 2]},
    **{"layerwise_sr_ratios": [4, 2, 1, 1], "max_drop_path_rate": 0.1, "layerwise_patch_sizes": [7, 3, 3, 3]},
    **{"layerwise_strides": [4, 2, 2, 2], "image_shape": IMAGE, "hidden_dims": [8, 16, 24, 32]},
}
RESNET: dict[str, Any] = {
    **{"input_conv_filters": [64], "input_conv_kernel_sizes": [7], "stackwise_num_filters": [64, 64, 96, 96]},
    **{"stackwise_num_blocks": [1, 1, 1, 1], "stackwise_num_strides": [1, 2, 2, 2]},
    **{"block_type": "basic_block", "image_shape": IMAGE},
}
CSP: dict[str, Any] = {
    **{"stem_filters": 16, "stem_kernel_size": 3, "stem_strides": 1, "stackwise_depth": [1, 1], "image_shape": IMAGE},
    **{"stackwise_strides": [2, 2], "stackwise_num_filters": [16, 32], "bottle_ratio": [0.5, 1.0]},
    **{"block_ratio": [1.0, 0.5], "expand_ratio": [2.0, 1.0]},
}
HGNET: dict[str, Any] = {
    **{"depths": [1, 1, 1, 1], "embedding_size": 16, "hidden_sizes": [16, 24, 32, 32], "stem_channels": [3, 8, 16]},
    **{"hidden_act": "relu", "use_learnable_affine_block": True, "image_shape": IMAGE},
    "stackwise_stage_filters": [[16, 8, 16, 1, 2, 3], [16, 8, 24, 1, 2, 3], [24, 8, 32, 1, 2, 5], [32, 8, 32, 1, 2, 5]],
    "apply_downsample": [False, True, True, True],
    "use_lightweight_conv_block": [False, False, True, True],
}


def _dfine_encoder() -> keras.Model:
    return _take("keras_hub.models.HGNetV2Backbone")(**HGNET, out_features=["stage3", "stage4"])


def _dfine() -> keras.Model:
    settings: dict[str, Any] = {
        **{"decoder_in_channels": [16, 16], "encoder_hidden_dim": 16, "num_labels": 4, "num_denoising": 0},
        **{"learn_initial_query": False, "num_queries": 10, "anchor_image_size": (64, 64), "feat_strides": [16, 32]},
        **{"num_feature_levels": 2, "hidden_dim": 16, "encoder_in_channels": [32, 32], "encode_proj_layers": [1]},
        **{"num_attention_heads": 2, "encoder_ffn_dim": 32, "num_encoder_layers": 1, "hidden_expansion": 0.5},
        **{"depth_multiplier": 0.34, "eval_idx": -1, "num_decoder_layers": 2, "decoder_attention_heads": 2},
        **{"decoder_ffn_dim": 32, "decoder_n_points": [4, 4], "lqe_hidden_dim": 16, "num_lqe_layers": 2},
        **{"image_shape": IMAGE, "out_features": ["stage3", "stage4"], "seed": 0},
    }
    return _take("keras_hub.models.DFineBackbone")(backbone=_dfine_encoder(), **settings)


def _retinanet() -> keras.Model:
    settings = {"min_level": 3, "max_level": 5, "use_p5": False, "image_shape": IMAGE}
    backbone = _take("keras_hub.models.RetinaNetBackbone")(
        _take("keras_hub.models.ResNetBackbone")(**RESNET), **settings
    )
    return _take("keras_hub.models.RetinaNetObjectDetector")(
        backbone=backbone, num_classes=3, label_encoder=None, pre_logits_num_conv_layers=2
    )


def _segformer() -> keras.Model:
    backbone = _take("keras_hub.models.SegFormerBackbone")(
        image_encoder=_take("keras_hub.models.MiTBackbone")(**MIT), projection_filters=16
    )
    return _take("keras_hub.models.SegFormerImageSegmenter")(backbone=backbone, num_classes=4)


def _deeplab() -> keras.Model:
    return _take("keras_hub.models.DeepLabV3Backbone")(
        image_encoder=_take("keras_hub.models.ResNetBackbone")(**RESNET),
        **{
            "spatial_pyramid_pooling_key": "P5",
            "upsampling_size": 8,
            "dilation_rates": [1, 2],
            "low_level_feature_key": "P2",
        },
        **{"projection_filters": 16, "image_shape": IMAGE},
    )


HUB: dict[str, Build] = {
    "Albert": _hub("AlbertBackbone", **TEXT, intermediate_dim=32, embedding_dim=8, **SHORT),
    "Bert": _hub_classifier(_hub("BertBackbone", **TEXT, intermediate_dim=32, **SHORT), "BertTextClassifier"),
    "Bart": _hub("BartBackbone", **TEXT, intermediate_dim=32, **SHORT),
    "Bloom": _hub("BloomBackbone", **TEXT, intermediate_dim=32),
    "CLIPVision": _hub("CLIPVisionEncoder", patch_size=16, intermediate_dim=32, image_shape=IMAGE, **VISION),
    "CSPNet": _hub_classifier(_hub("CSPNetBackbone", **CSP, block_type="dark_block", stage_type="csp")),
    "CSPNetCross": _hub_classifier(_hub("CSPNetBackbone", **CSP, block_type="bottleneck_block", stage_type="cs3")),
    "DebertaV3": _hub("DebertaV3Backbone", **TEXT, intermediate_dim=32, bucket_size=8, **SHORT),
    "DeepLabV3": _deeplab,
    "DeiT": _hub("DeiTBackbone", image_shape=IMAGE, patch_size=16, intermediate_dim=32, **VISION),
    "DenseNet": _hub_classifier(_hub("DenseNetBackbone", [2, 2, 2], IMAGE, growth_rate=8)),
    "DFine": _dfine,
    "DINOV2": _hub(
        "DINOV2Backbone",
        **{"patch_size": 16, "intermediate_dim": 32, "image_shape": IMAGE, "position_embedding_shape": IMAGE, **VISION},
    ),
    "DINOV3": _hub("DINOV3Backbone", patch_size=16, intermediate_dim=32, image_shape=IMAGE, **VISION),
    "DistilBert": _hub("DistilBertBackbone", **TEXT, intermediate_dim=32, **SHORT),
    "Electra": _hub(
        "ElectraBackbone",
        **{"vocab_size": 50, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "embedding_dim": 16},
        **{"intermediate_dim": 32, **SHORT},
    ),
    "ESM": _hub("ESMBackbone", **TEXT, intermediate_dim=32, **SHORT),
    "Falcon": _hub(
        "FalconBackbone", vocabulary_size=50, num_layers=2, num_attention_heads=2, hidden_dim=16, intermediate_dim=32
    ),
    "FNet": _hub("FNetBackbone", vocabulary_size=50, num_layers=2, hidden_dim=16, intermediate_dim=32, **SHORT),
    "Gemma": _hub("GemmaBackbone", **GROUPED, head_dim=4),
    "GPT2": _hub("GPT2Backbone", **TEXT, intermediate_dim=32, **SHORT),
    "GPTNeoX": _hub("GPTNeoXBackbone", **TEXT, intermediate_dim=32, rotary_percentage=0.5, **SHORT),
    "HGNetV2": _hub_classifier(
        _hub("HGNetV2Backbone", **HGNET), "HGNetV2ImageClassifier", preprocessor=None, head_filters=24
    ),
    "Llama3": _hub("Llama3Backbone", **GROUPED),
    "MiT": _hub_classifier(_hub("MiTBackbone", **MIT)),
    "Mistral": _hub("MistralBackbone", **GROUPED),
    "OPT": _hub("OPTBackbone", **TEXT, intermediate_dim=32, **SHORT),
    "Qwen": _hub("QwenBackbone", **GROUPED),
    "ResNet": _hub_classifier(_hub("ResNetBackbone", **RESNET)),
    "ResNetPre": _hub_classifier(
        _hub("ResNetBackbone", **{**RESNET, "block_type": "bottleneck_block", "use_pre_activation": True})
    ),
    "RetinaNet": _retinanet,
    "Roberta": _hub("RobertaBackbone", **TEXT, intermediate_dim=32, **SHORT),
    "RoformerV2": _hub("RoformerV2Backbone", **TEXT, intermediate_dim=32, head_size=8),
    "SegFormer": _segformer,
    "SwinTransformer": _hub(
        "SwinTransformerBackbone",
        **{"image_shape": IMAGE, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4},
    ),
    "T5": _hub("T5Backbone", **TEXT, intermediate_dim=32),
    "VGG": _hub_classifier(_hub("VGGBackbone", [1, 1, 2], [8, 16, 16], image_shape=IMAGE)),
    "ViT": _hub_classifier(
        _hub("ViTBackbone", image_shape=IMAGE, patch_size=(16, 16), mlp_dim=32, **VISION), "ViTImageClassifier"
    ),
    "Whisper": _hub(
        "WhisperBackbone", **TEXT, intermediate_dim=32, max_encoder_sequence_length=32, max_decoder_sequence_length=16
    ),
    "Xception": _hub_classifier(
        _hub("XceptionBackbone", [[16, 16], [24, 24], [32, 32]], [True, True, False], image_shape=IMAGE)
    ),
    "XLNet": _hub("XLNetBackbone", **TEXT, intermediate_dim=32),
}

_VIT: dict[str, Any] = {"patch_size": 8, "num_classes": 10, "dim": 16, "depth": 2, "heads": 2, "mlp_dim": 32}
_SEQUENCE: dict[str, Any] = {"seq_len": 32, "patch_size": 4, "num_classes": 10, "dim": 16, "depth": 2}
_SIDE = {"image_size": 32}
K3IM: dict[str, Build] = {
    "CaiT": _make("k3im.cait.CaiTModel", **_SIDE, **_VIT, cls_depth=1, dim_head=8),
    "CCT": _make(
        "k3im.cct.CCT",
        **{
            "input_shape": (32, 32, 3),
            "num_heads": 2,
            "projection_dim": 16,
            "kernel_size": 3,
            "stride": 1,
            "padding": 1,
        },
        **{"transformer_units": [16, 16], "stochastic_depth_rate": 0.1, "transformer_layers": 2, "num_classes": 10},
        positional_emb=True,
    ),
    "ConvMixer": _make("k3im.convmixer.ConvMixer", 32, filters=16, depth=2),
    "ConvMixer1D": _make("k3im.convmixer_1d.ConvMixer1DModel", filters=16, depth=2),
    "DeepViT": _make("k3im.deepvit.DeepViT", **_SIDE, **_VIT, dim_head=8),
    "EANet": _make("k3im.eanet.EANet", (32, 32, 3), 8, 16, 2, 32, 2, 4, 0.1, 0.1, 10),
    "EANet1D": _make("k3im.eanet_1d.EANet1DModel", **_SEQUENCE, heads=2, mlp_dim=32),
    "FNet": _make("k3im.fnet.FNetModel", 32, 8, 16, 2, 0.1, 10),
    "FocalNet": _make("k3im.focalnet.FocalNetModel", img_size=32, num_classes=10, embed_dim=16, depths=[1, 1]),
    "gMLP": _make("k3im.gmlp.gMLPModel", 32, 8, 16, 2, 0.1, 10),
    "gMLP1D": _make("k3im.gmlp_1d.gMLP1DModel", **_SEQUENCE),
    "MlpMixer": _make("k3im.mlp_mixer.MlpMixer", num_classes=10, img_size=32, patch_size=8, num_blocks=2, embed_dim=16),
    "Mixer1D": _make("k3im.mlp_mixer_1d.Mixer1DModel", **_SEQUENCE, hidden_units=16),
    "SimpleViT": _make("k3im.simple_vit.SimpleViT", **_SIDE, **_VIT, dim_head=8),
    "SimpleViTRegisters": _make("k3im.simple_vit_with_register_tokens.SimpleViT_RT", **_SIDE, **_VIT, dim_head=8),
    "SwinT": _make("k3im.swint.SwinTModel", 32, (2, 2), 16, 2, 4, 32, True, 0.0, 1, 10),
    "ViT": _make("k3im.vit.ViT", **_SIDE, **_VIT, dim_head=8),
    "ViT1D": _make("k3im.vit_1d.ViT1DModel", **_SEQUENCE, heads=2, mlp_dim=32, dim_head=8),
}


def _medicai(name: str, size: int = 32, dimensions: int = 2, channels: int = 1, **settings: Any) -> Build:
    return _make(f"medicai.models.{name}", input_shape=(size,) * dimensions + (channels,), **settings)


_NARROW: dict[str, Any] = {"decoder_filters": (32, 16, 16, 8, 8)}
MEDICAI: dict[str, Build] = {
    "AttentionUNet": _medicai("AttentionUNet", encoder_name="resnet18", **_NARROW),
    "ConvNeXtV2Atto": _medicai("ConvNeXtV2Atto", num_classes=10, channels=3),
    "DeepLabV3Plus": _medicai("DeepLabV3Plus", 64, encoder_name="resnet18", decoder_channels=32),
    "MixViTB0": _medicai("MixViTB0", num_classes=10, channels=3),
    "ResNet18": _medicai("ResNet18", num_classes=10),
    "ResNet18of3D": _medicai("ResNet18", dimensions=3, num_classes=10),
    "SegFormer": _medicai("SegFormer", 64, encoder_name="mit_b0", decoder_head_embedding_dim=16),
    "SEResNet18": _medicai("SEResNet18", num_classes=10),
    "SwinUNETR": _medicai("SwinUNETR", 64, encoder_name="swin_tiny", window_size=4, feature_size=12),
    "UNet": _medicai("UNet", encoder_name="resnet18", **_NARROW),
    "UNetof3D": _medicai("UNet", dimensions=3, encoder_name="resnet18", **_NARROW),
    "UNetPlusPlus": _medicai("UNetPlusPlus", encoder_name="resnet18", **_NARROW),
    "UPerNet": _medicai("UPerNet", 64, encoder_name="resnet18", decoder_filters=32),
}


def _segmentation(name: str, backbone: str, size: int = 64, **settings: Any) -> Build:
    return _make(f"segmodels_keras.{name}", backbone, input_shape=(size, size, 3), encoder_weights=None, **settings)


def _yolo(name: str, variant: str) -> Build:
    return _make(f"kyolo.build_{name}", variant=variant, nc=4, input_shape=(64, 64, 3))


CLIMATE: dict[str, Build] = {
    "Autoformer": _make(
        "keras_climate.forecasting.Autoformer",
        **{"seq_len": 24, "label_len": 12, "pred_len": 8, "num_channels": 3, "d_model": 16, "num_heads": 2, "d_ff": 32},
        **{"encoder_layers": 1, "moving_avg": 5},
    ),
    "ConvLSTM": _make("keras_climate.weather.ConvLSTMNowcaster", (4, 16, 16, 1), 4, filters=(8, 8), kernel_size=3),
    "DeepLabV3Plus": _make(
        "keras_climate.remote_sensing.DeepLabV3Plus",
        **{"input_shape": IMAGE, "backbone_layers": (1, 1, 1, 1), "aspp_filters": 16, "decoder_filters": 16},
    ),
    "DLinear": _make("keras_climate.forecasting.DLinear", 24, 8, 3, 5),
    "Informer": _make(
        "keras_climate.forecasting.Informer",
        **{"seq_len": 24, "label_len": 12, "pred_len": 8, "num_channels": 3, "d_model": 16, "num_heads": 2, "d_ff": 32},
    ),
    "NBeats": _make("keras_climate.forecasting.NBeats", 24, 8, num_blocks_per_stack=1, hidden_dim=16, num_fc_layers=2),
    "PatchTST": _make(
        "keras_climate.forecasting.PatchTST", 32, 8, 3, patch_len=8, stride=4, d_model=16, depth=1, num_heads=2
    ),
    "SegFormer": _make("keras_climate.remote_sensing.SegFormer", IMAGE),
    "TFT": _make("keras_climate.forecasting.TemporalFusionTransformer", 12, 4, hidden_dim=8, num_heads=2),
    "TimesNet": _make("keras_climate.forecasting.TimesNet", 24, 8, 3, d_model=8, d_ff=8, num_layers=1, num_kernels=2),
    "UNet": _make("keras_climate.remote_sensing.UNet", (32, 32, 3), base_filters=8, depth=2),
}

_SPEECH: dict[str, Any] = {"n_fft": 64, "hop_length": 32, "input_shape": (640, 1), "sample_rate": 8000, "n_mels": 16}


def _kapre() -> keras.Model:
    front = _take("kapre.composed.get_melspectrogram_layer")(**_SPEECH, return_decibel=True)
    layers = keras.layers
    return keras.Sequential(
        [front, layers.Conv2D(8, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(4)]
    )


def _kan() -> keras.Model:
    layer = _take("keras_efficient_kan.KANLinear")
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(12, "relu"), layer(6), keras.layers.Dense(3)])


def _mobile_vit(version: int) -> Build:
    key = {"model_type": "XXS"} if version == 1 else {"width_multiplier": 0.5}
    return _make(
        f"keras_vision.MobileViT_v{version}.build_MobileViT_v{version}", **key, num_classes=10, input_shape=IMAGE
    )


def _deep_cross() -> keras.Model:
    inputs = keras.Input((8,))
    crossed = _take("keras_rs.layers.FeatureCross")(projection_dim=4)(inputs, inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(16, "relu")(crossed)))


OTHERS: dict[str, Build] = {
    "kapre.Melspectrogram": _kapre,
    "keras_efficient_kan.KANLinear": _kan,
    "keras_lmu.LMU": _behind((10, 4), "keras_lmu.LMU", 4, 3, 10.0, keras.layers.SimpleRNNCell(8)),
    "keras_rs.FeatureCross": _deep_cross,
    "keras_vision.FastViT_T8": _make("keras_vision.fastvit.fastvit_t8", num_classes=10, input_shape=IMAGE),
    "keras_vision.MobileViT_V1": _mobile_vit(1),
    "keras_vision.MobileViT_V2": _mobile_vit(2),
    "kyolo.YOLO11n": _yolo("yolo11", "n"),
    "kyolo.YOLO12n": _yolo("yolo12", "n"),
    "kyolo.YOLOv10n": _yolo("yolov10", "n"),
    "kyolo.YOLOv5n": _yolo("yolov5", "n"),
    "kyolo.YOLOv8n": _yolo("yolov8", "n"),
    "kyolo.YOLOv9t": _yolo("yolov9", "t"),
    "mingru_keras.MinGRU": _behind((10, 4), "mingru_keras.MinGRU", 8),
    "ncps.CfC": _behind((10, 4), "ncps.keras.CfC", 8),
    "ncps.LTC": _behind((10, 4), "ncps.keras.LTC", 8),
    "segmodels.FPN": _segmentation("FPN", "resnet18", pyramid_block_filters=16),
    "segmodels.Linknet": _segmentation("Linknet", "mobilenet"),
    "segmodels.PSPNet": _segmentation("PSPNet", "mobilenetv2", 96, psp_conv_filters=16),
    "segmodels.Unet": _segmentation("Unet", "efficientnetb0", decoder_filters=(32, 16, 16, 8, 8)),
    "tcn.TCN": _behind((20, 4), "tcn.TCN", 8, dilations=(1, 2, 4), use_batch_norm=True),
    "tfswin.SwinV1": _make(
        "tfswin.SwinTransformer",
        *(64, 4, 16, (2, 2), (2, 2)),
        **{"input_shape": IMAGE, "classes": 10, "include_preprocessing": False},
    ),
    "tfvit.ViT": _make("tfvit.ViT", 16, 16, 2, 2, img_size=64, input_shape=IMAGE, classes=10, input_dtype="float32"),
}


def _named(package: str, networks: dict[str, Build]) -> dict[str, Build]:
    return {f"{package}.{name}": build for name, build in networks.items()}


NETWORKS: dict[str, Build] = {
    **OTHERS,
    **_named("keras_climate", CLIMATE),
    **_named("k3im", K3IM),
    **_named("keras_hub", HUB),
    **_named("medicai", MEDICAI),
    **_named("kimm", {name: _kimm(name) for name in KIMM}),
}
