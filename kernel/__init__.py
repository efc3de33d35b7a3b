"""The shared kernel: errors, messages, ids, money, the door to a database. It imports nothing of MallBots."""
