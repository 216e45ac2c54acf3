"""esp32: what is kept in the flash's NVS partition, and what the chip says of itself."""

from . import channel

HEAP_DATA, HEAP_EXEC = 4, 1
_FREE_BYTES = 110_000


class NVS:
    """Named values in the NVS partition; they outlive everything but an erase."""

    def __init__(self, namespace):
        self._namespace = namespace
        channel.call("nvs-open", namespace=namespace)

    def _call(self, op, key, **values):
        return channel.call("nvs-" + op, namespace=self._namespace, key=key, **values)

    def set_i32(self, key, value):
        if not -0x80000000 <= value <= 0x7FFFFFFF:
            raise OverflowError("overflow converting long int to machine word")
        self._call("set", key, number=value)

    def get_i32(self, key):
        return self._call("get", key, kind="number")

    def set_blob(self, key, value):
        if isinstance(value, str):
            value = value.encode()
        self._call("set", key, blob=bytes(value).hex())

    def get_blob(self, key, buffer):
        data = bytes.fromhex(self._call("get", key, kind="blob"))
        if len(data) > len(buffer):
            raise OSError(-0x110C, "ESP_ERR_NVS_INVALID_LENGTH")
        buffer[: len(data)] = data
        return len(data)

    def erase_key(self, key):
        self._call("erase", key)

    def commit(self):
        pass  # every set is in the flash already


class Partition:
    """An entry of the partition table."""

    BOOT, RUNNING = 0, 1
    TYPE_APP, TYPE_DATA = 0, 1

    def __init__(self, id):
        if id in (Partition.BOOT, Partition.RUNNING):
            found = [entry for entry in channel.call("partitions") if entry[0] == 0]
        else:
            found = [entry for entry in channel.call("partitions") if entry[4] == id]
        if not found:
            raise OSError(2)
        self._info = tuple(found[0])

    def info(self):
        return self._info + (False,)

    @staticmethod
    def find(type=TYPE_APP, subtype=0xFF, label=None, block_size=4096):
        return [
            Partition(entry[4])
            for entry in channel.call("partitions")
            if entry[0] == type and subtype in (0xFF, entry[1]) and label in (None, entry[4])
        ]


def idf_heap_info(capabilities):
    return [(_FREE_BYTES * 2, _FREE_BYTES, _FREE_BYTES // 2, _FREE_BYTES // 2)]


def raw_temperature():
    return 128
