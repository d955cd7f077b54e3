"""Gives what the hub answers its name and its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cutoff.errors import NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_SET_TOKEN = "set HF_TOKEN (in containers HF_TOKEN_FILE) to a token"  # noqa: S105  # how, not which
_FORBIDDEN = (401, 403)


@contextmanager
def hub_errors(hub_id: str, revision: str | None) -> Iterator[None]:
    """Turns what huggingface_hub raises into errors that say what to do.

    Raises:
        NotFound: There is no such model or revision, or it is hidden from this token.
        Refused: The model is gated, or the token is not accepted.
        Unavailable: The hub does not answer, or breaks off.
    """
    from httpx2 import HTTPError
    from huggingface_hub import errors

    page = f"https://huggingface.co/{hub_id}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise _gated(hub_id, page, error) from error
    except errors.RevisionNotFoundError as error:
        raise NotFound(f"{hub_id} has no revision {revision!r}", f"see {page}/commits/main") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise NotFound(
            f"there is no model {hub_id} on the hub that you may see ({_token_state()})",
            f"check its spelling; for a private model {_SET_TOKEN}; begin a folder with ./ or /",
        ) from error
    except errors.HfHubHTTPError as error:
        raise _answered(hub_id, error) from error
    except (HTTPError, errors.LocalEntryNotFoundError, errors.FileMetadataError) as error:
        raise Unavailable(f"the connection to the hub broke while fetching {hub_id}: {error}", "try again") from error


def _gated(hub_id: str, page: str, error: HfHubHTTPError) -> Refused:
    return Refused(
        f"{hub_id} is gated, and {_token_state()}; the hub says: {_said(error)}",
        f"accept its terms on {page}, wait until access is granted, then {_SET_TOKEN} of that account "
        "(a fine-grained one needs read access to gated repositories)",
    )


def _answered(hub_id: str, error: HfHubHTTPError) -> Refused | Unavailable:
    """An answer that is neither gated nor missing: the token's fault, or the hub's own."""
    if error.response.status_code in _FORBIDDEN:
        what = f"the hub does not give {hub_id} to you ({_token_state()}): {_said(error)}"
        return Refused(what, f"{_SET_TOKEN} it accepts")
    return Unavailable(f"the hub did not give {hub_id}: {_said(error)}", "try again later; HF_TOKEN must be valid")


def _said(error: HfHubHTTPError) -> str:
    """The hub's own words, which tell a token that expired from one that lacks a right."""
    return str(error.response.headers.get("X-Error-Message") or str(error).strip().partition("\n")[0])


def _token_state() -> str:
    from huggingface_hub import get_token

    return "the token that is set gives no access" if get_token() else "HF_TOKEN is not set"
