"""The choice of the storage that the settings name."""

from shared.config import ConfigurationError, StorageSettings
from shared.storage.files import FileStorage
from shared.storage.protocol import Storage


def open_storage(settings: StorageSettings) -> Storage:
    """
    Open the storage that *settings* name. Call it after a fork: connections do not survive one.

    Raises:
        ConfigurationError: The library for S3 is not installed, or it rejects credentials, profile, region or address
            from the settings or the environment.
    """
    if settings.is_s3:
        # The library is needed only for storage in S3.
        try:
            from botocore.exceptions import BotoCoreError

            from shared.storage.s3 import S3Storage
        except ModuleNotFoundError as error:
            raise ConfigurationError("storage.url is in S3, but the extra 's3' is not installed") from error

        try:
            return S3Storage(settings)
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"storage in S3 cannot be opened: {error}") from error
    return FileStorage(settings.url)
