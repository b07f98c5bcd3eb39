"""Results for people: tables and model cards."""
