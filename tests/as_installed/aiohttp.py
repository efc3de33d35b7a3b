"""The program is installed without aiohttp, which only the Stripe of the tests needs: nats-py imports it wherever
it is, and that takes each process of a mall 0.2 s."""

raise ImportError("aiohttp")
