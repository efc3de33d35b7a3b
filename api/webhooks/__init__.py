"""The gateway for those who tell MallBots of what happened on their side."""
