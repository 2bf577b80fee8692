"""Uploads files to a repository on the Hub in one commit."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import OfflineModeIsEnabled, httpx

from .._version import __version__

CARD = "README.md"
# Files of a new repository created on the website.
_EMPTY = {".gitattributes", CARD}
# The file that identifies a repository created by scar-hf.
_MARKS = {"dataset": "manifest.json", "model": "config.json"}


@dataclass(frozen=True)
class PushReport:
    """
    The result of a push, or of a dry run.

    Args:
        url (`str`): the URL of the repository.
        files (`dict[str, int]`): size in bytes of each file, by path in the repository.
        deleted (`tuple[str, ...]`): files of earlier pushes that this one deleted.
        commit (`str`, *optional*): the commit; `None` for a dry run.
        changed (`bool`): whether there is a new commit; there is none if nothing changed.
    """

    url: str
    files: dict[str, int]
    deleted: tuple[str, ...] = ()
    commit: str | None = None
    changed: bool = False


@dataclass(frozen=True)
class _Found:
    """The current state of a repository."""

    names: frozenset[str]
    commit: str | None
    card: str | None
    rows: tuple[str, ...]


def push(
    build: Callable[[str, str | None, Path], Mapping[str, Path]],
    repo_id: str,
    repo_type: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    message: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
) -> PushReport:
    """
    Upload files as one commit. Files that have arrived are not sent again, so the same call resumes an interrupted push. If
    nothing changed, there is no commit.

    Args:
        build (`Callable`):
            Creates the files. Given the repository id, the text of its card (or `None`), and a folder for the files, returns
            the files by their paths in the repository.
        repo_id (`str`): `"me/name"`, or `"name"` in the user's namespace.
        repo_type (`str`): `"dataset"` or `"model"`.
        private (`bool`, *optional*): whether a new repository is private; by default, the user's settings decide.
        revision (`str`, *optional*): a branch, created if needed; by default `main`.
        token (`str`, *optional*): defaults to the token of `hf auth login` or `$HF_TOKEN`.
        message (`str`, *optional*): the commit message.
        dry_run (`bool`, *optional*, defaults to `False`): create and list the files without uploading.
        overwrite (`bool`, *optional*, defaults to `False`): allow pushing to a repository that scar-hf did not create.

    Returns:
        [`PushReport`].

    Raises:
        `PermissionError`: if there is no token, or it lacks write access.
        `FileExistsError`: if the repository exists and was not created by scar-hf.
        `ConnectionError`: if the Hub cannot be reached.
        `ValueError`: if the id is invalid, or the Hub rejects the card's metadata.
    """
    api = HfApi(token=token, library_name="scar-hf", library_version=__version__)
    with TemporaryDirectory(prefix="scar-hf-") as name:
        folder = Path(name)
        if dry_run:
            files = {path: file.stat().st_size for path, file in sorted(build(repo_id, None, folder).items())}
            return PushReport(_url(repo_id, repo_type), files)
        if not (token or get_token()):
            raise PermissionError(
                "There is no token for the Hub. Run `hf auth login`, or set HF_TOKEN to a token with write access from "
                f"{constants.ENDPOINT}/settings/tokens."
            )
        with _errors_in_words(repo_id):
            if "/" not in repo_id:
                repo_id = f"{api.whoami()['name']}/{repo_id}"
            found = _look(api, repo_id, repo_type, revision, folder / ".found", overwrite)
        contents = build(repo_id, found.card if found else None, folder)
        with _errors_in_words(repo_id):
            return _send(api, contents, found, repo_id, repo_type, private, revision, message)


def _send(
    api: HfApi,
    contents: Mapping[str, Path],
    found: _Found | None,
    repo_id: str,
    repo_type: str,
    private: bool | None,
    revision: str | None,
    message: str | None,
) -> PushReport:
    if found is None:
        api.create_repo(repo_id, repo_type=repo_type, private=private)
    if revision is not None and revision != "main":
        api.create_branch(repo_id, repo_type=repo_type, branch=revision, exist_ok=True)
    stale = tuple(name for name in (found.rows if found else ()) if name not in contents)
    operations: list[Any] = [CommitOperationAdd(path, file) for path, file in sorted(contents.items())]
    operations += [CommitOperationDelete(name, is_folder=False) for name in stale]
    commit = api.create_commit(
        repo_id,
        operations,
        commit_message=message or f"Upload by scar-hf {__version__}",
        repo_type=repo_type,
        revision=revision,
    )
    files = {operation.path_in_repo: operation.upload_info.size for operation in operations[: len(contents)]}
    changed = found is None or commit.oid != found.commit
    return PushReport(_url(repo_id, repo_type), files, stale, commit.oid, changed)


def _look(api: HfApi, repo_id: str, repo_type: str, revision: str | None, folder: Path, overwrite: bool) -> _Found | None:
    """Return the content of a repository; `None` if it does not exist. Raise an error if scar-hf did not create it."""
    try:
        info = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
    except RevisionNotFoundError:
        info = api.repo_info(repo_id, repo_type=repo_type)
    except RepositoryNotFoundError:
        return None
    names = frozenset(file.rfilename for file in getattr(info, "siblings", None) or ())

    def text_of(name: str) -> str | None:
        if name not in names:
            return None
        try:
            path = api.hf_hub_download(repo_id, name, repo_type=repo_type, revision=info.sha, local_dir=folder)
        except EntryNotFoundError:
            return None
        return Path(path).read_text(encoding="utf-8", errors="replace")

    try:
        mark = json.loads(text_of(_MARKS[repo_type]) or "{}")
    except ValueError:
        mark = {}
    mark = mark if isinstance(mark, dict) else {}
    ours = mark.get("model_type") == "scar" if repo_type == "model" else {"ranker", "selection", "versions"} <= set(mark)
    if not (ours or overwrite or names <= _EMPTY):
        raise FileExistsError(
            f"The {repo_type} {repo_id} is on the Hub already and was not made by scar-hf: it has {len(names)} files, and no "
            f"{_MARKS[repo_type]} of ours. Choose another name, or pass overwrite=True (--overwrite on the command line) to "
            "add to it: files of the same names are replaced, all others and the text of its card stay."
        )
    rows = mark.get("output", {}).get("files", []) if ours and repo_type == "dataset" else []
    former = tuple(entry["name"] for entry in rows if entry.get("name") in names)
    return _Found(names, info.sha, text_of(CARD), former)


def _url(repo_id: str, repo_type: str) -> str:
    return f"{constants.ENDPOINT}/{constants.REPO_TYPES_URL_PREFIXES.get(repo_type, '')}{repo_id}"


@contextmanager
def _errors_in_words(repo_id: str) -> Iterator[None]:
    try:
        yield
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, RuntimeError) as error:
        # An upload error wraps the error of a single file.
        raise _in_words(error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error, repo_id) from error


def _in_words(error: BaseException, repo_id: str) -> OSError:
    """Convert an error of the Hub to one whose message names the remedy."""
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError("HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it.")
    if not isinstance(error, HfHubHTTPError):
        return ConnectionError(
            f"The connection to {constants.ENDPOINT} was lost or cannot be made ({str(error) or type(error).__name__}). Run "
            "the same command again: what has arrived is not sent again, and nothing shows before all has."
        )
    status = error.response.status_code
    said = error.server_message or str(error).splitlines()[0]
    if status == 403:
        return PermissionError(
            f"The token may not write to {repo_id} ({said}). Use one with write access to {repo_id.split('/')[0]}, by `hf auth "
            "login`, or choose a repository of your own."
        )
    if status == 401:
        return PermissionError(f"The Hub does not take the token ({said}). Run `hf auth login` again, or set HF_TOKEN.")
    if status == 404:
        return FileNotFoundError(f"{repo_id} was not found on the Hub ({said}): check the name, and that the token may see it.")
    if status == 409:
        return FileExistsError(
            f"{repo_id} was made or changed by somebody else meanwhile ({said}). Run the same command again."
        )
    return ConnectionError(
        f"The Hub answered {status} ({said}). Run the same command again: what has arrived is not sent again."
    )
