"""What the codec server stands on: the keys, and the database of staff to know who asks. It needs nothing else."""

from api.keys import ApiKeys
from api.staff.accounts import Accounts
from api.staff.acts import Acts
from api.staff.remembered import Remembered
from kernel.database import Database
from mallbots.encryption import encryption_codec
from mallbots.settings import Settings


class CodecServices:
    """The services of one codec server. Raises `Misconfigured` if there are no keys, or no URL of the database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.codec = encryption_codec(settings)
        self._database = Database("staff", settings.database_url("staff"), pool_size=settings.database_pool_size)
        self.service_keys = ApiKeys(self._database, "staff")
        self.known_services = Remembered(self.service_keys.principal_of)
        self.accounts = Accounts(self._database, session_hours=settings.session_hours)
        self.acts = Acts(self._database)

    async def close(self) -> None:
        """Give everything back."""
        await self._database.close()
