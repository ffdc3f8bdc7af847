"""What runs unattended: the schedule as a table, one function a job."""
