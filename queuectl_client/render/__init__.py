"""What is shown: tables and colours for people, JSON Lines for programs."""
