"""Labels for boards: what stands on them, where on the sheet, and the sheet as PDF and HTML."""
