"""An exported folder on the Hugging Face hub."""

from pathlib import Path

from danube_sweep.errors import ConfigError, HubError


def check_push(name: str) -> None:
    """Raises ConfigError, before any work, if an upload cannot work: an invalid name, no token, offline mode."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"--push {name}: no name for the hub; write OWNER/NAME or NAME") from error
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"--push {name}: HF_HUB_OFFLINE is set; unset it, or leave --push out")
    if get_token() is None:
        raise ConfigError(f"--push {name}: no Hugging Face token; log in by hf auth login, or set HF_TOKEN")


def push(folder: Path, name: str, *, private: bool) -> str:
    """Uploads the folder as one commit, into a repository that is created if necessary; returns its address.

    Raises HubError, in one line, if the token lacks the right or the hub cannot be reached. Raises ConfigError for
    `private` if the repository is public already. `folder` stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's

    try:
        api = HfApi()
        repository = api.create_repo(name, private=private, exist_ok=True)
        if private and not api.model_info(repository.repo_id).private:
            raise ConfigError(
                f"--private: {repository.repo_id} exists and is public; {folder} is whole, give another name"
            )
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message="Export by danube_sweep")
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = "the token may not write there" if status in (401, 403) else f"the hub answered {status}"
        raise HubError(f"--push {name}: {reason}; {folder} is whole, upload it later") from error
    except (HTTPError, OSError) as error:
        raise HubError(f"--push {name}: the hub cannot be reached; {folder} is whole, upload it later") from error
    return str(repository)
