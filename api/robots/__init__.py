"""The robots' gateway: a gRPC stream a robot, lists handed out and recalled, the orders' sagas told of it."""
