#!/usr/bin/env python3
"""Draw crops of short texts, upright and turned by 180 degrees, as PaddleOCR's text direction classifier reads them.

    python -m venv venv && venv/bin/pip install numpy pillow matplotlib font-roboto font-source-serif-pro
    venv/bin/python tools/render_text.py OUT_DIR [--input x] [--sheet sheet.png]

Writes into OUT_DIR

    calibration.npz, validation.npz, test.npz   one array, named like the graph's input: [n, 3, 48, 192] f32
    calibration-labels.npy, …                   [n] i64: 0 upright, 1 turned

with 200, 200, and 300 crops. Test texts are made of words that the other two do not use, and each set has its own
random stream. Fonts are those that the Python packages above bring, so no font of the system matters; the same
versions of the packages write the same bytes.

Each crop: one to three words, a number, or both, in one of 36 fonts and sizes of 20 to 60 pixels, cut close; a
plain, shaded or striped background and a colour apart from it; turned by up to 3 degrees, blurred, noisy, saved as
JPEG at times. Then, as the classifier reads it: scaled to height 48 and at most width 192, (v / 255 - 0.5) / 0.5,
channels first, blue first, and zeros on the right up to 192.
"""

import argparse
import importlib.util
import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HEIGHT, WIDTH = 48, 192
# name, crops, which half of the words, random stream
SETS = [("calibration", 200, 0, 1), ("validation", 200, 0, 2), ("test", 300, 1, 3)]

FONTS = {
    "matplotlib": (
        "mpl-data/fonts/ttf",
        """DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSans-BoldOblique DejaVuSansMono DejaVuSansMono-Bold
        DejaVuSerif DejaVuSerif-Bold DejaVuSerif-Italic STIXGeneral STIXGeneralBol STIXGeneralItalic
        STIXGeneralBolIta cmr10 cmb10 cmss10 cmtt10""",
    ),
    "font_roboto": (
        "files",
        """Roboto-Regular Roboto-Bold Roboto-Black Roboto-Light Roboto-Medium Roboto-Italic Roboto-BoldItalic
        Roboto-LightItalic Roboto-Thin""",
    ),
    "font_source_serif_pro": (
        "files",
        """SourceSerifPro-Regular SourceSerifPro-Bold SourceSerifPro-Black SourceSerifPro-It SourceSerifPro-BoldIt
        SourceSerifPro-Light SourceSerifPro-LightIt SourceSerifPro-Semibold SourceSerifPro-SemiboldIt
        SourceSerifPro-BlackIt""",
    ),
}

WORDS = """
    about above account address after again airport almost always amount animal answer apple april around arrival
    august autumn avenue balance banana basket battery beach before behind better between bicycle black bottle
    bread breakfast bridge bright brother budget building butter button cabbage camera candle capital castle
    ceiling center change cheese chicken chocolate church circle citizen closed coffee colour company copper corner
    cotton country credit cricket customer danger daughter december delivery dentist departure different dinner
    direction discount doctor dollar double dragon eastern eight electric elephant empty engine entrance evening
    exactly example exit express factory family farmer february finger fire flower forest forward fragile freedom
    fresh friday friend future garden gentle glass golden grand green grocery guitar happy harbour health heavy
    herbal holiday honest hospital hotel house hundred hungry iceberg inside invoice island january jacket journey
    juice jungle justice kettle kitchen kingdom ladder language laundry lemon letter library light limited liquid
    little london machine magazine manager market master meadow medical member message metal middle minute mirror
    modern monday money morning mother mountain museum music napkin natural nature nearly needle network never
    number october office opening orange order organic oxygen packet painter palace paper parking partner payment
    pencil people pepper perfect person petrol phone picture planet plastic please pocket police popular pottery
    powder present price private product public purple quality quarter quick quiet rabbit railway recipe region
    rescue restaurant return river rocket rubber safety salmon saturday school science screen season second secret
    service seven shadow shoulder silver simple sister smooth soccer solid southern special spring square station
    stone street student sugar summer sunday supper supply surface system table teacher temple theatre thousand
    thunder ticket timber tomato total tourist towards traffic travel tuesday tunnel under uniform upper useful
    valley vegetable village violet visitor volume waiting walnut warning water weather wednesday weekend welcome
    western whisky window winter without wooden world yellow yesterday young zebra
""".split()


def fonts():
    """Paths of all fonts, in a fixed order."""
    paths = []
    for package, (folder, names) in FONTS.items():
        found = importlib.util.find_spec(package)
        if found is None:
            raise SystemExit(f"the Python package {package.replace('_', '-')} is missing (see --help)")
        for name in names.split():
            path = Path(found.origin).parent / folder / f"{name}.ttf"
            paths.append(path if path.exists() else path.with_suffix(".otf"))
    return paths


def text(random, words):
    """Words, a number, or both."""
    case = random.choice([str.lower, str.capitalize, str.upper, str.capitalize])
    parts = [case(str(random.choice(words))) for _ in range(random.choice([1, 1, 2, 2, 3]))]
    kind = random.integers(10)
    if kind < 3:
        number = int(random.integers(10, 10_000))
        form = random.choice(["{}", "No. {}", "{}.50", "${}", "{}%", "{} kg"])
        # A number alone may read the same from both ends.
        parts = [*parts[:1], form.format(number)]
    elif kind == 3:
        day, month = int(random.integers(1, 29)), str(random.choice(["Jan", "Mar", "Apr", "Jun", "Sep", "Dec"]))
        parts = [f"{day} {month}", str(int(random.integers(1980, 2030)))]
    return " ".join(parts)


def colours(random):
    """Background and ink, their brightness at least 90 of 255 apart."""
    weights = np.array([0.299, 0.587, 0.114])
    while True:
        ground, ink = random.uniform(0, 255, 3), random.uniform(0, 255, 3)
        if random.random() < 0.5:
            # Half are near grey, as print is.
            ground = ground.mean() + random.normal(0, 8, 3)
            ink = ink.mean() + random.normal(0, 8, 3)
        if abs((ground - ink) @ weights) >= 90:
            return ground.clip(0, 255), ink.clip(0, 255)


def crop(random, words, paths):
    """An upright text as an RGB image."""
    font = ImageFont.truetype(str(paths[random.integers(len(paths))]), int(random.integers(20, 61)))
    line = text(random, words)
    left, top, right, bottom = font.getbbox(line)
    ground, ink = colours(random)
    margin = 40
    size = (right - left + 2 * margin, bottom - top + 2 * margin)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).text((margin - left, margin - top), line, fill=255, font=font)
    angle = float(random.uniform(-3, 3)) if random.random() < 0.7 else 0.0
    mask = mask.rotate(angle, Image.Resampling.BICUBIC)
    # Cut as a detector would: close, and never quite even.
    x0, y0, x1, y1 = mask.getbbox()
    pad = random.uniform(0.02, 0.25, 4) * (y1 - y0)
    box = [x0 - pad[0], y0 - pad[1], x1 + pad[2], y1 + pad[3]]
    box = [max(0, int(v)) for v in box[:2]] + [min(int(v), limit) for v, limit in zip(box[2:], size)]
    cover = np.asarray(mask.crop(box), np.float64)[..., None] / 255
    rows, cols = cover.shape[:2]
    paper = np.broadcast_to(ground, (rows, cols, 3))
    kind = random.integers(4)
    if kind == 0:
        paper = paper + (np.linspace(-1, 1, cols) * random.uniform(-35, 35))[None, :, None]
    elif kind == 1:
        period = random.uniform(3, 15)
        paper = paper + (np.sin(np.arange(rows) / period) * random.uniform(3, 15))[:, None, None]
    image = paper * (1 - cover) + ink * cover
    image = Image.fromarray(image.clip(0, 255).astype(np.uint8))
    if random.random() < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0.2, 1.4))))
    noisy = np.asarray(image, np.float64) + random.normal(0, random.uniform(0, 12), (rows, cols, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def jpeg(image, quality):
    """The image after JPEG."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(io.BytesIO(data.getvalue())).convert("RGB")


def read(image):
    """What the classifier reads: [3, 48, 192] f32."""
    width = min(WIDTH, math.ceil(HEIGHT * image.width / image.height))
    small = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    out = np.zeros((3, HEIGHT, WIDTH), np.float32)
    out[:, :, :width] = (small[..., ::-1].transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return out


def draw(count, half, stream, paths):
    """Crops and labels; every other one is turned."""
    random = np.random.default_rng([2026, stream])
    order = np.random.default_rng(2026).permutation(len(WORDS))
    words = [WORDS[i] for i in order[half::2]]
    crops, labels = [], np.arange(count) % 2
    for label in labels:
        image = crop(random, words, paths)
        if label:
            image = image.transpose(Image.Transpose.ROTATE_180)
        if random.random() < 0.3:
            image = jpeg(image, int(random.integers(40, 90)))
        crops.append(read(image))
    return np.stack(crops), labels.astype(np.int64)


def make(folder, name="x"):
    """Write all sets; the crops of each by name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, sets = fonts(), {}
    for key, count, half, stream in SETS:
        crops, labels = draw(count, half, stream, paths)
        np.savez(folder / f"{key}.npz", **{name: crops})
        np.save(folder / f"{key}-labels.npy", labels)
        sets[key] = (crops, labels)
    return sets


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--input", default="x", help="name of the array, which is that of the graph's input")
    parser.add_argument("--sheet", type=Path, help="an image of the first 40 test crops, to look at")
    args = parser.parse_args()
    sets = make(args.out, args.input)
    for key, (crops, _) in sets.items():
        print(f"{args.out / key}.npz: {args.input} {list(crops.shape)}")
    if args.sheet:
        first = sets["test"][0][:40].reshape(10, 4, 3, HEIGHT, WIDTH).transpose(0, 3, 1, 4, 2)
        pixels = first.reshape(10 * HEIGHT, 4 * WIDTH, 3)[..., ::-1]
        Image.fromarray(((pixels * 0.5 + 0.5) * 255).astype(np.uint8)).save(args.sheet)


if __name__ == "__main__":
    main()
