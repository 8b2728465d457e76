# One peer in a process of its own: builds, measures, prints one JSON object.
import json
import sys
import time

import numpy

module, folder = sys.argv[1], sys.argv[2]
dimensions, m, ef_construction, rounds = map(int, sys.argv[3:7])


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


base = numpy.memmap(f"{folder}/base.f32", "float32", "r").reshape(-1, dimensions)
queries = numpy.fromfile(f"{folder}/queries.f32", "float32").reshape(-1, dimensions)
truth = numpy.fromfile(f"{folder}/truth.u32", "uint32").reshape(-1, 10)
count, part = len(base), 1000


def parts():
    for first in range(0, count, part):
        yield numpy.array(base[first : first + part]), numpy.arange(first, min(first + part, count))


if module == "hnswlib":
    import hnswlib

    name = "hnswlib " + getattr(hnswlib, "__version__", "")
    before = resident()
    index = hnswlib.Index("ip", dimensions)
    index.init_index(count, ef_construction=ef_construction, M=m, allow_replace_deleted=True)
    index.set_num_threads(1)

    def add(vectors, ids):
        index.add_items(vectors, ids, num_threads=1)

    def search(vectors, ef):
        index.set_ef(ef)
        return index.knn_query(vectors, 10, num_threads=1)[0]

elif module == "faiss":
    import faiss

    faiss.omp_set_num_threads(1)
    name = "faiss IndexHNSWFlat " + faiss.__version__
    before = resident()
    index = faiss.IndexHNSWFlat(dimensions, m, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = ef_construction

    def add(vectors, ids):
        index.add(vectors)

    def search(vectors, ef):
        index.hnsw.efSearch = ef
        return index.search(vectors, 10)[1]

else:
    import usearch
    from usearch.index import Index

    name = "usearch i8 " + usearch.__version__
    before = resident()
    index = Index(ndim=dimensions, metric="cos", dtype="i8", connectivity=m, expansion_add=ef_construction)

    def add(vectors, ids):
        index.add(ids, vectors, threads=1)

    def search(vectors, ef):
        index.expansion_search = ef
        return index.search(vectors, 10, threads=1).keys


def recall(found, truth):
    return sum(len(set(map(int, f)) & set(map(int, t))) for f, t in zip(found, truth)) / truth.size


began = time.process_time()
for vectors, ids in parts():
    add(vectors, ids)
build = time.process_time() - began
memory = (resident() - before) / 1e6

points = []
for ef in [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]:
    began = time.process_time()
    found = search(queries, ef)
    used = time.process_time() - began
    points.append({"ef": ef, "recall": recall(found, truth), "query_us": used * 1e6 / len(queries)})

churn = None
if module == "hnswlib" and rounds:
    # A quarter is marked deleted and replaced by other vectors, by `replace_deleted`. A label is never used again: a new element
    # takes any deleted slot and forgets the label of that slot, even if it has become that of a live element.
    labels = numpy.arange(count)
    live = numpy.array(base)
    quarter = count // 4
    replaced = numpy.memmap(f"{folder}/churn.f32", "float32", "r").reshape(rounds, quarter, dimensions)
    start = resident()
    for turn in range(rounds):
        ids = (numpy.arange(quarter) + turn * quarter) % count
        for number in ids:
            index.mark_deleted(int(labels[number]))
        labels[ids] = ids + count * (turn + 1)
        index.add_items(numpy.array(replaced[turn]), labels[ids], num_threads=1, replace_deleted=True)
        live[ids] = replaced[turn]
    grown = memory * 1e6 + resident() - start
    exact = numpy.argsort(-(queries @ live.T), axis=1)[:, :10]
    fresh = hnswlib.Index("ip", dimensions)
    fresh.init_index(count, ef_construction=ef_construction, M=m)
    fresh.add_items(live, numpy.arange(count), num_threads=1)
    fresh.set_ef(128)
    churn = {
        "recall": recall(search(queries, 128).astype("int64") % count, exact),
        "fresh_recall": recall(fresh.knn_query(queries, 10, num_threads=1)[0], exact),
        "memory": grown / (memory * 1e6),
    }

print(json.dumps({"name": name, "build_s": build, "memory_mb": memory, "points": points, "churn": churn, "filters": []}))
