"""A Spark job that does what the offload job does of the JVM: two Python tasks and a collect. Run while baking."""

from pyspark.sql import SparkSession


def _double(number: int) -> int:
    return 2 * number


def main() -> None:
    spark = SparkSession.builder.appName("warm-up").getOrCreate()
    try:
        doubled = spark.sparkContext.parallelize([1, 2], 2).map(_double).collect()
        if doubled != [2, 4]:
            raise RuntimeError(f"Spark computed {doubled}")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
