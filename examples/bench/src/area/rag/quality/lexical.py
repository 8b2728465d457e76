# BM25 of tantivy or bm25s over words that are numbers already; prints the best documents of each query with scores.
import json
import sys

system, path, k = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(path) as file:
    data = json.load(file)
documents = [[f"t{word}" for word in words] for words in data["documents"]]
queries = [[f"t{word}" for word in words] for words in data["queries"]]

lists = []
if system == "bm25s":
    import bm25s

    index = bm25s.BM25(k1=1.2, b=0.75, method="lucene", dtype="float64")
    index.index(documents, show_progress=False)
    for query in queries:
        if any(word in index.vocab_dict for word in query):
            known = [word for word in query if word in index.vocab_dict]
            found, scores = index.retrieve([known], k=min(k, len(documents)), show_progress=False)
            lists.append([[int(one), float(score)] for one, score in zip(found[0], scores[0]) if score > 0])
        else:
            lists.append([])
else:
    import tantivy

    schema = tantivy.SchemaBuilder()
    schema.add_text_field("text", tokenizer_name="default")
    schema.add_unsigned_field("number", stored=True)
    index = tantivy.Index(schema.build())
    writer = index.writer(num_threads=1)
    for number, words in enumerate(documents):
        writer.add_document(tantivy.Document(text=" ".join(words), number=number))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()
    for query in queries:
        terms = [(tantivy.Occur.Should, tantivy.Query.term_query(index.schema, "text", word, "freq")) for word in query]
        found = searcher.search(tantivy.Query.boolean_query(terms), k).hits if terms else []
        lists.append([[searcher.doc(address)["number"][0], float(score)] for score, address in found])
print(json.dumps(lists))
