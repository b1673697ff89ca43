"""Floor 4: the laboratory, where what is said about scale is measured on models that the user trains.

fits, reliability     what a table of losses says, and what answers of many steps say: refllm's or anybody's
running, materials    how models are trained side by side, and what they are trained on
experiments           one a file; `experiment` says what one is, and conducts it
claims                what is said about scale, judged on their results; `page` and `record` show it
"""
