"""The Hugging Face Hub: download a shared model, and say in one line what the Hub refuses.

Sources: huggingface_hub's ``ModelHubMixin``, of which ``runs.Run`` is one.
"""

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from glimpsenet.errors import HubError, SettingError, UserError, first_line

LOG_IN = "`hf auth login` logs in, or HF_TOKEN=... names a token that may write"


def check_name(repo_id: str) -> str:
    """The NAME of USER/NAME.

    Raises:
        SettingError: for anything else.
    """
    user, _, name = repo_id.partition("/")
    if not user or not name or "/" in name:
        raise SettingError(f"a model on the Hub is called USER/NAME, not {repo_id!r}")
    return name


def download(repo_id: str, files: tuple[str, ...], **options: Any) -> Path:
    """The folder in the Hub's cache with those of ``files`` that a repository has; others are not even fetched.

    Args:
        repo_id: USER/NAME.
        files: names of files.
        **options: of ``huggingface_hub.snapshot_download``: revision, token, cache_dir, local_files_only...

    Raises:
        UserError: if there is no such repository, or it cannot be reached.
    """
    with one_line_errors(repo_id):
        return Path(snapshot_download(repo_id, allow_patterns=list(files), **options))


def require_login(token: str | bool | None) -> None:
    """Refuse to push before anything is made.

    Raises:
        UserError: without a token.
    """
    if not (token or get_token()):
        raise HubError(f"not logged in to the Hugging Face Hub: {LOG_IN}")


@contextlib.contextmanager
def one_line_errors(repo_id: str) -> Iterator[None]:
    """What the Hub refuses, as a ``UserError`` that names the repository and the way out."""
    try:
        yield
    except UserError:
        raise
    except HFValidationError as error:
        raise HubError(f"{repo_id} is no folder here, and no name of a model on the Hub, USER/NAME") from error
    except GatedRepoError as error:
        raise HubError(f"{repo_id} is gated: ask for access on its page on the Hub, then log in") from error
    except RepositoryNotFoundError as error:
        hint = f"no folder {repo_id} here, and no such model on the Hub; if it is private, {LOG_IN}"
        raise HubError(hint) from error
    except RevisionNotFoundError as error:
        raise HubError(f"{repo_id} on the Hub has no such revision: {first_line(error)}") from error
    except LocalTokenNotFoundError as error:
        raise HubError(f"not logged in to the Hugging Face Hub: {LOG_IN}") from error
    except HfHubHTTPError as error:
        way = f": {LOG_IN}" if error.response.status_code in (401, 403) else ""
        raise HubError(f"the Hub refuses {repo_id}: {first_line(error)}{way}") from error
    except Exception as error:  # a connection fails in the kinds of whatever library the Hub's speaks through
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise HubError(f"cannot reach {repo_id} on the Hub, and it is no folder here: {reason}") from error
