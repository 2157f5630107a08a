"""Reading our own videos back."""

import av


def read_video(path):
    """Frames (H, W, 3) uint8 in order."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
