"""What people look at: report pages, figures, tables, and lines on the console."""
