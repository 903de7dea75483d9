"""Models by their name: on the Hugging Face hub, fetched or uploaded, or in the package; a folder of that name wins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audiolm_kit.checkpoint import CONFIG, kind_of
from audiolm_kit.published import names

# huggingface_hub is imported where it is used: whoever names folders does without it.

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
CLIENTS = ("httpx", "httpx2", "requests")  # what huggingface_hub talks with, by its version
LEFT_OUT = [".*", "*/.*", "*.ckpt", "*.tmp"]  # of a folder that is uploaded: hidden files, and the state of a run


def is_name(name: str | Path) -> bool:
    """Whether it is to be looked for on the hub: ``owner/model``, and no file or folder here."""
    return isinstance(name, str) and bool(NAME.fullmatch(name)) and not Path(name).exists()


def local(name: str | Path, patterns: Sequence[str] | None = None) -> Path:
    """A folder as it is, or that of a model of the hub: from its cache when offline, else fetched where it is not.

    Args:
        name: a folder, ``owner/model`` on the hub, or a model that comes with the package; where there is a folder of
            that name, it is that.
        patterns: of the files that are needed (``*`` goes over ``/``); None needs all.

    Raises:
        FileNotFoundError: neither is there, or the hub cannot be reached and its cache lacks files.
        PermissionError: the model is for those who have agreed to its terms.
    """
    if not is_name(name):
        if Path(name).is_dir():
            return Path(name)
        if (own := names.found(name)) is not None:
            return own
        choices = f"give a folder that is there, or a name on the hub (owner/model){names.offer()}"
        raise FileNotFoundError(f"no checkpoint folder at {name}: {choices}")
    from huggingface_hub import snapshot_download

    with _told(f"no checkpoint folder at {name}, nor such a model of the hub", str(name)):
        return Path(snapshot_download(str(name), allow_patterns=None if patterns is None else list(patterns)))


def checkpoint(name: str | Path) -> Path:
    """As ``local``, of one of our checkpoints; another program's model on the hub is told before it is fetched.

    Raises:
        ValueError: the hub has a model of that name that must be imported first.
        FileNotFoundError: as ``local``, and so is PermissionError.
    """
    if is_name(name) and not kind_of(local(name, [CONFIG])):
        raise ValueError(f"{name} is not one of our checkpoints: audiolm-kit import {name} FOLDER makes one of it")
    return local(name)


def upload(folder: str | Path, name: str, private: bool = False, api: Any = None) -> str:
    """Put a folder on the hub as the model ``name``, which is made if it is not there; returns its address.

    Args:
        private: whether a model that is made is seen by its owner alone; one that is there stays as it is.
        api: what talks to the hub, an ``HfApi``; None for one with the user's own token.

    Raises:
        ValueError: ``name`` is none.
        FileNotFoundError: the hub does not know the owner, or cannot be reached.
        PermissionError: the user's token may not write there.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}, wanted owner/model, as the hub has it")
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    with _told(f"{name} cannot be uploaded", name):
        made = api.create_repo(name, private=True if private else None, exist_ok=True)
        message = f"Upload {Path(folder).name} with audiolm_kit"
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message=message, ignore_patterns=LEFT_OUT)
    return str(made)


@contextmanager
def _told(beginning: str, name: str) -> Iterator[None]:
    """Say what the hub's client cannot do in one line: what was asked for, why not, and what helps."""
    from huggingface_hub import errors

    login = "log in with `hf auth login`"
    try:
        yield
    except errors.GatedRepoError:
        told = f"{name} is for those who agree to its terms: agree at https://hf.co/{name} and {login}"
        raise PermissionError(told) from None
    except errors.RepositoryNotFoundError:
        told = f"{beginning}: the hub knows no {name}, or it is private; check the name, or {login}"
        raise FileNotFoundError(told) from None
    except errors.LocalEntryNotFoundError as error:
        lacking = f"{beginning}: its cache lacks it or a part of it"
        raise FileNotFoundError(f"{lacking}, and {_unreachable(error.__cause__)}; fetch it once online") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise PermissionError(f"{beginning}: the hub refuses this user (status {status}); {login}") from None
        raise FileNotFoundError(f"{beginning}: the hub fails (status {status}); try again later") from None
    except errors.HFValidationError as error:
        raise ValueError(f"{beginning}: {' '.join(str(error).split())}") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] not in CLIENTS and not isinstance(error, errors.OfflineModeIsEnabled):
            raise
        raise FileNotFoundError(f"{beginning}: {_unreachable(error)}; try again online") from None


def _unreachable(cause: BaseException | None) -> str:
    """Why the hub could not be asked."""
    offline = cause is None or type(cause).__name__ == "OfflineModeIsEnabled"
    return "HF_HUB_OFFLINE is set" if offline else f"it cannot be reached ({type(cause).__name__})"
