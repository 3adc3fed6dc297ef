"""nbgrader's settings for this course: `make assignments`, `make grade`, and nbgrader itself, where it is started here.

Due dates stand in the gradebook, after `make assignments`:
`nbgrader db assignment add 03_augmentation --duedate "2027-03-05 18:00 UTC"`.
"""

from pathlib import Path

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "cifar10"
c.CourseDirectory.root = str(Path(__file__).resolve().parent / "build" / "assignments")

c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\n"
                                       'raise NotImplementedError("write your lines above, then delete this one")'}
c.ClearSolutions.text_stub = "YOUR ANSWER HERE"

# "zero" gives no marks for what came after the due date; a plugin of yours can do otherwise.
c.LateSubmissionPlugin.penalty_method = "none"

# A warning in a graded cell would cost all its marks: nbgrader takes whatever comes on stderr for a failure.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = "."

# Feedback shows what students' cells printed, which may be a script.
c.HTMLExporter.sanitize_html = True

# What one submission may take in `make grade`. An image of the course for docker or podman: tools/grading.Dockerfile.
c.SandboxExecute.cell_seconds = 60
c.SandboxExecute.notebook_seconds = 240
c.SandboxExecute.memory_mb = 4096
c.SandboxExecute.output_kb = 4096
