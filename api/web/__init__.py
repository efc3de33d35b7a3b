"""The pages of people: templates and assets, and how they are served."""
