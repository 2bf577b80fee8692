"""Instructions and responses -> scores."""
