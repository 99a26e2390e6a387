"""The page at "/" of the server: models and their versions, and something to ask them with."""
