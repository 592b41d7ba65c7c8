"""What each key may be after a power cut: the last acknowledged version, or one that was tried after it. Keys of the bucket with versions also
keep every acknowledged older one."""


class Oracle:
    def __init__(self):
        self.acknowledged = {}  # key -> (version, size); size -1: deleted
        self.tried = {}         # key -> newest version that was asked for
        self.deleted = set()    # keys of which a delete was asked for since the last acknowledgement
        self.older = {}         # key -> {version: size}: acknowledged versions of keys that keep them
        self.highest = 0

    def line(self, words):
        """A TRY or an ACK. Returns whether it was an acknowledgement."""
        key, version, size = words[1], int(words[2]), int(words[3])
        self.highest = max(self.highest, version)
        if words[0] == "TRY":
            self.tried[key] = version
            if size == -1:
                self.deleted.add(key)
            return False
        self.deleted.discard(key)
        self.acknowledged[key] = (version, size)
        if keeps_versions(key) and size != -1:
            self.older.setdefault(key, {})[version] = size
        return True

    def judge(self, states, kept):
        """Complaints about what a boot found. states: key -> (version, size); kept: key -> versions that are there, the current one too."""
        complaints = []
        if not states and not self.acknowledged:
            return complaints
        for key, (version, size) in self.acknowledged.items():
            if key.startswith("-"):
                continue
            found = states.get(key)
            if found is None:
                # A later delete may have been under way.
                if size != -1 and key not in self.deleted:
                    complaints.append(f"{key}: version {version} of {size} bytes was acknowledged and is gone")
            elif found[0] < version or (found[0] == version and size == -1):
                complaints.append(f"{key}: version {found[0]} is back, {version} was acknowledged")
            elif found[0] == version and found[1] != size and size >= 40:
                complaints.append(f"{key}: version {version} has {found[1]} bytes instead of {size}")
        for key, found in states.items():
            newest = max(self.acknowledged.get(key, (0, 0))[0], self.tried.get(key, 0))
            if not key.startswith("-") and found[0] > newest:
                complaints.append(f"{key}: version {found[0]} was never asked for")
        for key, versions in self.older.items():
            complaints += [f"{key}: version {v} was acknowledged in a bucket that keeps versions, and is gone"
                           for v in versions if v not in kept.get(key, ())]
        complaints += [f"the bucket {key[1:]} is gone" for key in self.acknowledged if key.startswith("-") and key in states]
        return complaints

    def settle(self, states, kept):
        """What was found is from now on what must be there."""
        buckets = {key: (0, 0) for key in self.acknowledged if key.startswith("-") and key not in states}
        self.acknowledged = {key: found for key, found in states.items() if not key.startswith("-")} | buckets
        self.tried, self.deleted = {}, set()
        self.older = {key: dict.fromkeys(versions) for key, versions in kept.items() if keeps_versions(key)}


def keeps_versions(key):
    return key.startswith("v")
