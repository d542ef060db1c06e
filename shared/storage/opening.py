"""Opens the storage that the settings name."""

from shared.config import ConfigurationError, StorageSettings
from shared.storage.files import FileStorage
from shared.storage.protocol import Storage


def open_storage(settings: StorageSettings) -> Storage:
    """
    Open the storage that *settings* name. Call it after a fork: connections do not survive one.

    Raises:
        ConfigurationError: It is in S3, and the library for S3 is not installed, or refuses what the settings or the
            environment say of credentials, profile, region or address.
    """
    if settings.is_s3:
        # Only a service with files in S3 needs the library.
        try:
            from botocore.exceptions import BotoCoreError

            from shared.storage.s3 import S3Storage
        except ModuleNotFoundError as error:
            raise ConfigurationError("storage.url is in S3, and the extra 's3' is not installed") from error

        try:
            return S3Storage(settings)
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"storage in S3 cannot be opened: {error}") from error
    return FileStorage(settings.url)
