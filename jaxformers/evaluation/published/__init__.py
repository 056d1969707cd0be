"""Results and costs that the papers report, one file a family of tasks; they import nothing."""
