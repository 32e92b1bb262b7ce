"""What a file is by its first bytes, where these betray that it is no model at all."""

HEAD = 512                      # bytes that are enough to tell
LFS_POINTER = b"version https://git-lfs"
PAGES = (b"<!doctype", b"<html", b"<?xml")
BEFORE_PAGES = b"\xef\xbb\xbf \t\r\n"               # a byte order mark, and white space


def impostor(head: bytes) -> tuple[str, str] | None:
    """What a file that begins like this is instead of a part of a model, and what to do then.

    None for any other file.
    """
    if not head:
        return "is empty", "fetch it again"
    if head.startswith(LFS_POINTER):
        return ("is a Git LFS pointer, a note where the file lies, not the file",
                "fetch the real one, for instance with `git lfs pull`")
    if head.lstrip(BEFORE_PAGES)[:9].lower().startswith(PAGES):
        return ("is a web page, not weights",
                "the download was refused or the address was wrong; fetch it again")
    return None
