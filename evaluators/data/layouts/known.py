"""Facts about published data sets: their splits, their counts, and what is wrong in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluators.data.layouts.entries import Entry, Layout
from evaluators.data.samples import Split

_FOLDS: dict[Split, str] = {
    "train": """
        03bSnISJMiM 0h-zjBukYpk 1DmNV9C1hbY 1iG0909rllw 2WGyTLYerpo 2iD-tVS8NPw 5W7Z1C_fDaE
        6Egk_28TtTM 6_0THN4chvY 73jzhE8R1TQ 7JsX8y1ysxY 8OtFthrtaJM 8d-gEyoeBzc 8qrpnFRGt2A
        9J25DZhivz8 9T9Hf74oK10 9c67fiY0wGQ 9qR7uwkblbs Af8D0E4ZXaw BI97DNYfe5I BXuRRbG0Ugk
        Bfr499ggo-0 BioHAh1qJAQ BvYR0L6f2Ig Ci-AH39fi3Y Clx4VXItLTE Dg_0XKD0Mf4 G-xst2euQUc
        G6GlGvlkxAQ GWuJjcEuzt8 HEsqda8_d0Q I5y0__X72p0 Iu2PFX3z_1s IumbAb8q2dM Jkswaaud0hk
        LSi-o-IrDMs MLal-t_vJPM Njd1F0vZSm4 Nzq88NnDkEk OQvJTdtJ2H4 OtBXNcAL_lE Oz06ZWiO20M
        POKffnXeBds PZ-lDQFboO8 QN9ZIUWUXsY Qr1Ca94K55A Sqr0AcuoNnk TvyZBvOMOTc VCslbP0mgZI
        VbQk4H8hgr0 Vj1wYRQjB-o W8NXH0Djyww""",
    "valid": """
        WKA5OygbEKI X3j2zQgwYgE ZAIRrfG22O0 ZUXBRvtny7o _dI--eQ6qVU aiEXnCPZubE atnd_PF-Lbs
        bOL9jKpeJRs bvLlb-M3UXU c5xsKMxpXnc""",
    "test": """
        c7UH_rxdZv4 cM3Yna7AavY cW1FSBF59ik cXypl4FnoZo d3_k5Xpfmik d6hH302o4v8 dq3Nf_lMPnE
        etzxEpPuc6I f9O3YtZ2VfI f_pcplsH_V0 fvVhgmXxadc iiK8YX8oH1E jUzDDGyPkXU k5Y_838nuGo
        lXPQBPVc5Cw nbWiPyCm4g0 nzpVDcQ0ywM ob23OKe5a9Q pLTX3ipuDJI phBUpBr1hSo rnaNMUZpvvg
        tIrG4oNLFzE tStelxIAHjw tmZoasNr4rU v0zCBqDeKcE vvZ4IcEtiZc vyB00TXsimI wMbj6ajWbic
        yDtzw_Y-7RU yvsjCA6Y5Fc zhpQhgha_KU""",
}
"""The standard folds of the CMU Multimodal SDK, by video."""


@dataclass(frozen=True)
class Known:
    """What is known of one published data set.

    counts: by split, what is counted ("samples", "videos", "negative", "zero", "positive") and
    how many of it there are. folds: the split that a video belongs to. odd: rows whose published
    clip is not what it should be, and why; one of them that cannot be used is no fault of a copy.
    """

    name: str
    counts: Mapping[Split, Mapping[str, int]]
    folds: Mapping[str, Split] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)


MOSI = Known(
    name="CMU-MOSI",
    counts={
        "train": {"samples": 1284, "videos": 52, "negative": 552, "zero": 53, "positive": 679},
        "valid": {"samples": 229, "videos": 10, "negative": 92, "zero": 13, "positive": 124},
        "test": {"samples": 686, "videos": 31, "negative": 379, "zero": 30, "positive": 277},
    },
    folds={video: split for split, videos in _FOLDS.items() for video in videos.split()},
    odd={
        "2WGyTLYerpo/44": "it has no length in the original, and its published clip shows the "
        "segments after it"
    },
)
"""Sources: the CMU Multimodal SDK's standard folds and its issue 37, MMSA's label.csv."""

MELD = Known(
    name="MELD",
    counts={"train": {"samples": 9989}, "valid": {"samples": 1109}, "test": {"samples": 2610}},
    odd={
        "train/dia125_utt3": "its published clip cannot be decoded",
        "valid/dia110_utt7": "its clip is not among those published",
    },
)
"""Sources: MELD's own statistics, and issues 22, 27 and 39 of declare-lab/MELD."""


def known_data(layout: Layout, entries: Sequence[Entry]) -> Known | None:
    """The published data set that these rows are, or mean to be; None for any other.

    Rows in MELD's files are MELD. Clips are CMU-MOSI where at least half of their videos are its
    own: CMU-MOSEI and others come in the same layout, and a part of CMU-MOSI is still CMU-MOSI.
    """
    if layout == "meld":
        return MELD
    if layout != "clips":
        return None
    videos = {entry.group for entry in entries}
    return MOSI if 2 * len(videos & MOSI.folds.keys()) >= len(videos) else None
