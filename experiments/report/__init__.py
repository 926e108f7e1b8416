"""What runs came to: tables, figures and one page."""
