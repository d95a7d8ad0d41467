"""A Spark job that does what the offload job does of the JVM: two Python tasks and a collect. Run while baking."""

from pyspark import SparkConf, SparkContext


def _double(number: int) -> int:
    return 2 * number


def main() -> None:
    spark = SparkContext.getOrCreate(SparkConf().setIfMissing("spark.app.name", "warm-up"))
    try:
        seen = spark.accumulator(0)
        doubled = spark.parallelize([1, 2], 2).map(lambda n: (seen.add(n), _double(n))[1]).collect()
        if doubled != [2, 4]:
            raise RuntimeError(f"Spark computed {doubled}")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
