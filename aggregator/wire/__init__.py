"""What goes between agents and the aggregator: sealed batches and announced keys.

Both ends share these formats and nothing else. They are pure: bytes in, bytes out.

Neighbouring versions understand each other, whichever end is upgraded first, and lose nothing:

- A batch has a version, the `v` of its header. A door and an ingest take the current one and the
  one before; so a new version begins to be sent by agents a release after it began to be taken.
- Whatever its version, a batch begins with one line of JSON that has `v` and `month`. So a batch of
  a version that is not known waits sealed, can be told from one that is damaged, and goes with its
  month (CL-2); a door answers `unknown_version`, an agent keeps it and tries again. The other
  fields of a version are closed: another field is another version.
- An announcement's version is in what its signature covers. An agent sends the newest version of
  batches that it knows and that every door which announces so takes. Fields may be added to an
  announcement; agents ignore those that they do not know, as in every other answer of the door,
  where the status decides what becomes of a batch.
- An agent keeps a batch whatever it is answered, but for 202 and, once its own clock says so too,
  for 410: an answer that it does not understand means later, never no.
- An enrolment file is read as strictly as a configuration: what is added to it, an agent must know
  before it is written. So agents are upgraded before such a file is made for them.

There is one version so far, 1, of batches, of announcements and of answers.
"""
