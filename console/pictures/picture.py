"""Draws screens that tmux captured (`capture-pane -e -p`): `picture.py png OUT < SCREEN`, `picture.py gif OUT SCREEN...`.

A captured file for a GIF is called NUMBER-HUNDREDTHS: how long it is shown. Needs pyte and pillow, and the DejaVu fonts.
"""

import sys

import pyte
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 120, 36
SIZE, MARGIN = 14, 8
GROUND, INK = "#14171c", "#d4d8df"
COLOURS = {
    "black": "#20242b", "red": "#d86b6b", "green": "#86bd68", "brown": "#d9b44a",
    "blue": "#6c9fd6", "magenta": "#b48ac4", "cyan": "#5dbdbd", "white": "#d4d8df",
    "brightblack": "#737b89", "brightred": "#ff8080", "brightgreen": "#a9e088", "brightbrown": "#ffd97a",
    "brightblue": "#93c3ff", "brightmagenta": "#d6aee6", "bfightmagenta": "#d6aee6", "brightcyan": "#8ce8e8",
    "brightwhite": "#ffffff",
}
# The directions into which the lines of frames go: cells must join without a gap.
LEFT, RIGHT, UP, DOWN = 1, 2, 4, 8
LINES = {
    "─": LEFT | RIGHT, "│": UP | DOWN, "┌": RIGHT | DOWN, "┐": LEFT | DOWN, "└": RIGHT | UP, "┘": LEFT | UP,
    "├": UP | DOWN | RIGHT, "┤": UP | DOWN | LEFT, "┬": LEFT | RIGHT | DOWN, "┴": LEFT | RIGHT | UP,
}
FONTS = "/usr/share/fonts/truetype/dejavu/"
PLAIN = ImageFont.truetype(FONTS + "DejaVuSansMono.ttf", SIZE)
BOLD = ImageFont.truetype(FONTS + "DejaVuSansMono-Bold.ttf", SIZE)
WIDTH = round(PLAIN.getlength("M"))
HEIGHT = sum(PLAIN.getmetrics())


# What pyte makes of the sixteen colours where they are named by number.
NUMBERED = dict(zip(
    "000000 cd0000 00cd00 cdcd00 0000ee cd00cd 00cdcd e5e5e5 "
    "7f7f7f ff0000 00ff00 ffff00 5c5cff ff00ff 00ffff ffffff".split(),
    "black red green brown blue magenta cyan white "
    "brightblack brightred brightgreen brightbrown brightblue brightmagenta brightcyan brightwhite".split(),
))
SYMBOLS = ImageFont.truetype(FONTS + "DejaVuSans.ttf", SIZE - 2)
MISSING = bytes(PLAIN.getmask("\U0010fffe"))


def colour(name, default):
    """A colour as Pillow takes it."""
    if name == "default":
        return default
    return COLOURS.get(NUMBERED.get(name, name)) or "#" + name


def font(cell):
    """The font that has the character of a cell."""
    if ord(cell.data[0]) > 0x2000 and bytes(PLAIN.getmask(cell.data)) == MISSING:
        return SYMBOLS
    return BOLD if cell.bold else PLAIN


def draw(captured):
    """One screen as an image."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    for number, line in enumerate(captured.rstrip("\n").split("\n")[:ROWS], start=1):
        # No reset: a line goes on with the looks of the one before.
        stream.feed(f"\x1b[{number};1H{line}")
    image = Image.new("RGB", (COLUMNS * WIDTH + 2 * MARGIN, ROWS * HEIGHT + 2 * MARGIN), GROUND)
    pen = ImageDraw.Draw(image)
    for row in range(ROWS):
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            ink, ground = colour(cell.fg, INK), colour(cell.bg, GROUND)
            if cell.reverse:
                ink, ground = ground, ink
            x, y = MARGIN + column * WIDTH, MARGIN + row * HEIGHT
            if ground != GROUND:
                pen.rectangle([x, y, x + WIDTH - 1, y + HEIGHT - 1], fill=ground)
            if not cell.data.strip():
                continue
            code, ways = ord(cell.data[0]), LINES.get(cell.data)
            if ways:
                middle, half = x + WIDTH // 2, y + HEIGHT // 2
                for way, end in ((LEFT, (x, half)), (RIGHT, (x + WIDTH - 1, half)), (UP, (middle, y)),
                                 (DOWN, (middle, y + HEIGHT - 1))):
                    if ways & way:
                        pen.line([(middle, half), end], fill=ink)
            elif 0x2581 <= code <= 0x2588:
                filled = round(HEIGHT * (code - 0x2580) / 8)
                pen.rectangle([x, y + HEIGHT - filled, x + WIDTH - 1, y + HEIGHT - 1], fill=ink)
            else:
                pen.text((x, y), cell.data, font=font(cell), fill=ink)
    return image


def few_colours(image):
    """The same with a palette: a tenth of the bytes."""
    return image.quantize(colors=48, dither=Image.Dither.NONE)


def main():
    """Does what the command line says."""
    kind, out, *screens = sys.argv[1:]
    if kind == "png":
        few_colours(draw(sys.stdin.buffer.read().decode())).save(out, optimize=True)
        return
    images, times = [], []
    for path in screens:
        with open(path, encoding="utf-8") as file:
            image = draw(file.read())
        time = 10 * int(path.rsplit("-", 1)[1])
        # A frame that shows nothing new makes the one before longer.
        if images and images[-1].tobytes() == image.tobytes():
            times[-1] += time
        else:
            images.append(image)
            times.append(time)
    first, *others = [few_colours(image) for image in images]
    first.save(out, save_all=True, append_images=others, duration=times, loop=0, optimize=True)


main()
